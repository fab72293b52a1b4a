//! One node among members that lie: what a member may say, however wrong, makes no node panic, break an invariant
//! of its own, or write what it could not start from again.
//!
//! All is chosen by bytes, so that a fuzzer (`make fuzz`) can choose: what the node finds on its disk, what
//! comes in from whom, when its own writes and reads are done, when it crashes and starts again. Its own disk
//! and its caller are honest; nobody else is.
//!
//! After every step these must hold: the core's own invariants; what was written is what the core says of itself;
//! what leaves behind a write is true of the disk; what is handed out is on the disk, in order, and once. A
//! node may end ([`Effect::Halt`]) because safety is broken, as it is where members lie, but for no other reason.

mod choices;
mod messages;
mod node;
mod written;

#[cfg(test)]
mod tests;

use choices::Choices;
use node::Node;

/// No input makes more happen than that.
const STEPS_MAX: usize = 1000;

/// A node's life among liars, as `data` chooses it.
///
/// # Panics
/// When something does not hold.
pub fn liar(data: &[u8]) {
    let mut choices = Choices::new(data);
    let Some(mut node) = Node::start(&mut choices) else {
        return;
    };
    for _ in 0..STEPS_MAX {
        if node.live(&mut choices).is_none() || node.ended() {
            return;
        }
    }
}
