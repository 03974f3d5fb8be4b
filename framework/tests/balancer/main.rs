//! The balancer stage from outside: packets in, packets out, on memory ports.

mod choice;
mod hostile;
mod katran;
mod lab;
mod model;
mod outer;
mod packets;
mod shares;
mod workers;
