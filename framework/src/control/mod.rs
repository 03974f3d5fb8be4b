//! What an application needs beside the data path, in ordinary threads.

#[cfg(feature = "health")]
pub mod health;
pub mod interface;
#[cfg(feature = "metrics")]
pub mod metrics_http;
pub mod privileges;
pub mod resolver;
pub mod socket;
mod threads;
