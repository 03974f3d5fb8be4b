//! The balancer stage from outside: packets in, packets out, on memory ports.

mod answers;
mod choice;
mod fragments;
mod hostile;
mod lab;
mod model;
mod outer;
mod packets;
mod questions;
mod shares;
mod tunnels;
mod workers;
