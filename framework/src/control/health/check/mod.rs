//! The checks themselves. None of them waits: each goes on when its descriptors are ready, and says when it
//! is over.

pub(super) mod echo;
pub(super) mod http;
pub(super) mod program;
pub(super) mod tcp;
pub(super) mod tls;
