//! Network namespaces that belong to a thread, and so go with the process whatever way it ends.

use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, and the thread in it.
pub(crate) struct Namespace {
    jobs: Sender<Job>,
    path: PathBuf,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
        std::thread::spawn(move || queue.into_iter().for_each(|job| job()));
        let namespace = Self { jobs, path: PathBuf::new() };
        let thread = namespace.run(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("the tests run as root");
            nix::unistd::gettid()
        });
        let path = format!("/proc/{}/task/{thread}/ns/net", std::process::id()).into();
        Self { path, ..namespace }
    }

    /// Runs something in the namespace.
    pub(crate) fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (done, result) = channel();
        self.jobs
            .send(Box::new(move || drop(done.send(job()))))
            .expect("the thread runs as long as this lives");
        result.recv().expect("the job did not panic")
    }

    /// Runs `ip` with these words and returns what it prints.
    pub(crate) fn ip(&self, words: &str) -> String {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        self.run(move || {
            let output = Command::new("ip").args(&words).output().expect("iproute2 is installed");
            assert!(output.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("ip prints UTF-8")
        })
    }

    /// Sets something below `/proc/sys/net`.
    pub(crate) fn sysctl(&self, name: &'static str, value: &'static str) {
        self.run(move || std::fs::write(format!("/proc/sys/net/{name}"), value).expect("root may set it"));
    }

    /// Makes a veth link between this namespace and another.
    pub(crate) fn link(&self, name: &str, other: &Namespace, other_name: &str) {
        let path = other.path.display();
        self.ip(&format!("link add {name} type veth peer name {other_name} netns {path}"));
        self.ip(&format!("link set {name} up"));
        other.ip(&format!("link set {other_name} up"));
    }
}
