//! The data path over memory ports: no card, no root. Each test ends with every frame accounted for.

mod creation;
mod handing_over;
mod holding;
mod malformed;
mod pipelines;
mod random;
mod running;
mod segments;
mod sizes;
mod stopping;
mod support;
mod verdicts;
