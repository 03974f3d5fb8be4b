//! What an application needs beside the data path, in ordinary threads.

#[cfg(feature = "health")]
pub mod health;
pub mod interface;
pub mod resolver;
