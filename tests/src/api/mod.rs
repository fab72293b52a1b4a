//! A replicated program, and what is done to it: the instrument behind `make api`.
//!
//! Read in this order:
//!
//! - [`machine`] the state machine: registers, a counter, and a bulk of any size;
//! - [`wire`] what a replica is asked over its control connection, and what it answers;
//! - [`replica`] one node in a process of its own, and [`sink`] its subscribers, which write down what they are handed;
//! - [`client`] who asks it, from a process that no kill of a node ends;
//! - [`proxy`] the wires between the nodes, which can be cut;
//! - [`cluster`] three replicas with their wires, and [`nemesis`] what befalls them;
//! - [`members`] replicas that come and go, for `make cluster`;
//! - [`memory`] what a process takes of the machine's memory.
//!
//! Invariants: every wait has an end; nothing outlives the program that started it; what a client was not told it
//! does not guess.

pub mod client;
pub mod cluster;
pub mod machine;
pub mod members;
pub mod memory;
pub mod nemesis;
pub mod proxy;
pub mod recorder;
pub mod replica;
pub mod sink;
pub mod wire;
