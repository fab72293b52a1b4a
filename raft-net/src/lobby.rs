//! How many connections are accepted, and which one gives way.
//!
//! Invariants: connections are bounded in all and for each address, and those in the middle of their
//! handshake besides; who is in the middle of it gives way to who comes, never who is established; the
//! place of one that gives way is free at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Limits;
use crate::cut::{Cut, Why};

/// Every accepted connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lobby(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Those in the middle of their handshake, in the order of their coming.
    guests: BTreeMap<u64, Cut>,
    /// All that have not given way, by where they came from.
    connections: BTreeMap<u64, IpAddr>,
    /// How many of these each address has.
    held: BTreeMap<IpAddr, usize>,
    next: u64,
}

impl Lobby {
    /// Makes room for one more of `address`, beside `connections` in all; false if there is none, because all
    /// places are taken by established connections.
    pub(crate) fn has_room(&self, address: IpAddr, connections: usize, limits: &Limits) -> bool {
        let state = &mut *self.state();
        let held = state.held.get(&address).copied().unwrap_or(0);
        if held >= limits.connections_per_address_max {
            let mut guests = state.guests.keys();
            let oldest = guests.find(|id| state.connections.get(id) == Some(&address));
            return oldest.copied().is_some_and(|id| state.evict(id));
        }
        let full = connections >= limits.connections_max;
        if full || state.guests.len() >= limits.handshakes_max {
            return state.most(address).is_some_and(|id| state.evict(id)) || !full;
        }
        true
    }

    pub(crate) fn enter(&self, address: IpAddr, cut: Cut) -> Place {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.guests.insert(id, cut);
        state.connections.insert(id, address);
        *state.held.entry(address).or_default() += 1;
        Place {
            lobby: self.clone(),
            id,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, what is there is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The oldest guest of the address that has most of them, if one more comes from `comes`.
    fn most(&self, comes: IpAddr) -> Option<u64> {
        let mut guests = BTreeMap::from([(comes, 1_usize)]);
        let address = |id: &u64| self.connections.get(id).copied();
        for address in self.guests.keys().filter_map(address) {
            *guests.entry(address).or_default() += 1;
        }
        let of = |id: &&u64| address(id).map_or(0, |address| guests[&address]);
        // The last of those that are equal is what `max_by_key` gives: from behind, the oldest.
        self.guests.keys().rev().max_by_key(of).copied()
    }

    fn evict(&mut self, id: u64) -> bool {
        let guest = self.guests.remove(&id);
        self.forget(id);
        guest.is_some_and(|cut| {
            cut.cut(Why::Evicted);
            true
        })
    }

    fn forget(&mut self, id: u64) {
        self.guests.remove(&id);
        let Some(address) = self.connections.remove(&id) else {
            return;
        };
        if let Some(held) = self.held.get_mut(&address) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&address);
            }
        }
    }
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    lobby: Lobby,
    id: u64,
}

impl Place {
    /// The handshake is over: it gives way to nobody any more. False if it has given way already.
    pub(crate) fn establish(&self) -> bool {
        self.lobby.state().guests.remove(&self.id).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lobby.state().forget(self.id);
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn enter(lobby: &Lobby, last: u8) -> (Place, CancellationToken, Cut) {
        let stop = CancellationToken::new();
        let cut = Cut::below(&stop);
        (lobby.enter(address(last), cut.clone()), stop, cut)
    }

    fn is_cut((.., cut): &(Place, CancellationToken, Cut)) -> bool {
        use futures_util::FutureExt;
        cut.fallen().now_or_never().is_some()
    }

    #[test]
    fn an_address_at_its_bound_pushes_out_its_own_guests_and_nobody_else() {
        let limits = Limits {
            connections_per_address_max: 3,
            ..Limits::default()
        };
        let lobby = Lobby::default();
        let other = enter(&lobby, 2);
        let mine: Vec<_> = (0..3).map(|_| enter(&lobby, 1)).collect();
        assert!(mine[0].0.establish());
        assert!(lobby.has_room(address(1), 4, &limits));
        assert_eq!(
            mine.iter().map(is_cut).collect::<Vec<_>>(),
            [false, true, false]
        );
        assert!(!mine[1].0.establish(), "it has given way");
        let newer = enter(&lobby, 1);
        assert!(newer.0.establish() && mine[2].0.establish());
        assert!(
            !lobby.has_room(address(1), 5, &limits),
            "all are established"
        );
        assert!(lobby.has_room(address(2), 5, &limits) && !is_cut(&other));
        drop(newer);
        assert!(lobby.has_room(address(1), 4, &limits));
        drop((mine, other));
        assert!(lobby.state().held.is_empty() && lobby.state().connections.is_empty());
    }

    #[test]
    fn of_all_guests_the_oldest_of_the_greediest_address_gives_way() {
        let limits = Limits {
            handshakes_max: 4,
            ..Limits::default()
        };
        let lobby = Lobby::default();
        let polite = enter(&lobby, 9);
        let greedy: Vec<_> = (0..3).map(|_| enter(&lobby, 1)).collect();
        assert!(lobby.has_room(address(7), 4, &limits));
        assert!(is_cut(&greedy[0]) && !is_cut(&greedy[1]) && !is_cut(&polite));
    }
}
