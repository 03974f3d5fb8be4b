//! `afx-pktgen send` over veth: what it says it sent is what arrives, in each mode. Needs root.

mod arrives;
mod ends;
mod pair;
mod refusals;
mod replay;
