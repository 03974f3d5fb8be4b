//! The log, on the standard error: lines for people, or JSON for programs.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How the log is written.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line: `timestamp`, `level`, `message`, and what else there is to say, each under its name.
    Json,
}

/// Starts the log. The variable `AFX_LOG` says what is logged; without it, `default` does.
pub(crate) fn start(format: Format, default: &str) {
    let filter = EnvFilter::try_from_env("AFX_LOG").unwrap_or_else(|_| default.into());
    let log = to(io::stderr, format, filter, io::stderr().is_terminal());
    // Fails only where there is a log already.
    let _ = tracing::subscriber::set_global_default(log);
}

fn to<W>(writer: W, format: Format, filter: EnvFilter, colour: bool) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    // A log that cannot be written, because a disk is full or its reader is gone, is no reason to stop balancing.
    let log = log.log_internal_errors(false);
    match format {
        Format::Text => Box::new(log.with_ansi(colour).finish()),
        Format::Json => Box::new(log.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = to(move || writer.clone(), format, "info".into(), false);
        tracing::subscriber::with_default(log, || {
            tracing::info!(pid = 7, port = "eth0", "it is said: \"balancing\"");
            tracing::debug!("nobody wants to know");
            tracing::warn!("careful");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_for_people() {
        let text = logged(Format::Text);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].contains(" INFO ")
                && lines[0].ends_with("it is said: \"balancing\" pid=7 port=\"eth0\"")
        );
        assert!(lines[1].ends_with(" WARN careful"), "{text}");
    }

    #[test]
    fn json_for_programs() {
        let text = logged(Format::Json);
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["message"], "it is said: \"balancing\"");
        assert_eq!(
            (&lines[0]["level"], &lines[0]["pid"], &lines[0]["port"]),
            (&"INFO".into(), &7.into(), &"eth0".into())
        );
        assert!(lines[0]["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(lines[1]["level"], "WARN");
    }
}
