//! See `raft_net::fuzz::frame_pieces`.
#![no_main]

raft_actor_fuzz::target!(raft_net::fuzz::frame_pieces, floor: 512 << 10, factor: 64);
