//! The steps of a pipeline.

pub mod balancer;
