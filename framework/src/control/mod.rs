//! What an application needs beside the data path, in ordinary threads.

pub mod interface;
pub mod resolver;
pub mod socket;
mod threads;
