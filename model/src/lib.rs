//! A model check of `raft-core`: every order of messages, writes and crashes within bounds, over the shipped
//! code. `README.md` says what each model covers, and what it leaves out.
//!
//! The modules, in this order: [`disk`] and [`packet`] are the world that loses; [`node`] is the shipped core in
//! it; [`history`] and [`law`] say what must hold; [`cluster`] is the model that the checker walks, [`bounds`],
//! [`silence`] and [`scene`] are its limits; [`models`] are the five; [`check`] runs them and reports.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod disk;

pub mod packet;

pub mod node;

mod doing;

mod memo;

pub mod law;

mod compare;

pub mod history;

pub mod action;

pub mod cluster;

pub mod bounds;

pub mod silence;

pub mod scene;

pub mod models;

pub mod check;

mod figures;
