//! What a configuration says of a member beyond its id: which data folder it is, and where it is found.

use std::collections::BTreeMap;

use super::Configuration;
use crate::{Incarnation, NodeId};

/// The longest address that a member may have, in bytes: a domain name and a port.
pub const ADDRESS_LEN_MAX: usize = 261;

/// The longest name that a member's certificate may be asked for, in bytes: a domain name.
pub const TLS_NAME_LEN_MAX: usize = 253;

/// Who a member is, for those who dial it. The core carries it, and looks at none of it: it is in a
/// [`Configuration`](super::Configuration) so that one entry adds a node with all that must be known of it, and is
/// cut off as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The data folder that goes by this id. Once it is known it stays: ids are not given to another folder.
    pub incarnation: Option<Incarnation>,
    /// Where it is dialled, `host:port`; empty if that is not known. See [`is_address`].
    pub address: String,
    /// The name that its certificate must hold, in at most [`TLS_NAME_LEN_MAX`] bytes of printable ASCII; empty for
    /// the usual one.
    pub tls_name: String,
}

impl Member {
    /// Whether its address and its name can be such.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let name = &self.tls_name;
        is_address(&self.address) && name.len() <= TLS_NAME_LEN_MAX && is_printable(name)
    }
}

impl Configuration {
    /// One in which these nodes vote, each known by its data folder and by nothing else, and nobody else is.
    #[must_use]
    pub fn of_folders(folders: impl IntoIterator<Item = (NodeId, Incarnation)>) -> Self {
        let known = |incarnation| Member {
            incarnation: Some(incarnation),
            ..Member::default()
        };
        let about = folders.into_iter().map(|(id, folder)| (id, known(folder)));
        let about: BTreeMap<_, _> = about.collect();
        Self {
            voters: about.keys().copied().collect(),
            about,
            ..Self::default()
        }
    }

    /// The members whose data folders are known, each with its own.
    #[must_use]
    pub fn folders(&self) -> BTreeMap<NodeId, Incarnation> {
        let folders = self.about.iter();
        let folders = folders.filter_map(|(id, member)| Some((*id, member.incarnation?)));
        folders.collect()
    }
}

/// Whether `address` is empty, or `host:port` in at most [`ADDRESS_LEN_MAX`] bytes of printable ASCII. Whether anybody
/// is there is another question.
#[must_use]
pub fn is_address(address: &str) -> bool {
    let port = |(host, port): (&str, &str)| !host.is_empty() && matches!(port.parse(), Ok(1_u16..));
    let whole = address.rsplit_once(':').is_some_and(port);
    address.is_empty() || whole && address.len() <= ADDRESS_LEN_MAX && is_printable(address)
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}
