//! Settings as people write them: `500ms`, `64MiB`, `1=127.0.0.1:7001,2=…`.
//!
//! An error says what was written and what was expected; where it was written is the caller's to say.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use raft_core::NodeId;

pub(super) fn number(text: &str) -> Result<u64, String> {
    // `parse` would take a sign too.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = |what: &str| format!("{text:?} {what}");
    if !digits {
        return Err(wrong("is not a number"));
    }
    text.parse().map_err(|_| wrong("is too large a number"))
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    usize::try_from(number(text)?).map_err(|_| format!("{text:?} is too large a number"))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is no duration like 500ms, 10s or 1h: {error}"))
}

pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let size: ByteSize = text
        .parse()
        .map_err(|error| format!("{text:?} is no size like 4096, 512KiB or 64MiB: {error}"))?;
    Ok(size.as_u64())
}

pub(super) fn bytes_here(text: &str) -> Result<usize, String> {
    usize::try_from(bytes(text)?).map_err(|_| format!("{text:?} is too large a size"))
}

pub(super) fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        text => Err(format!("{text:?} is neither \"on\" nor \"off\"")),
    }
}

/// Something that can be switched off, by the word `off`.
pub(super) fn or_off<T>(
    text: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match text {
        "off" => Ok(None),
        text => read(text)
            .map(Some)
            .map_err(|error| format!("{error}; or \"off\"")),
    }
}

/// `ID=HOST:PORT`, separated by commas. Whether the list makes sense as a whole is
/// [`Config`](super::Config)'s to say.
pub(super) fn peers(list: &str) -> Result<Vec<(NodeId, String)>, String> {
    list.split(',')
        .enumerate()
        .map(|(at, item)| {
            let wrong = |what: &str| format!("item {} ({item:?}): {what}", at + 1);
            let item = item.trim();
            if item.is_empty() {
                return Err(wrong("it is empty; each is ID=HOST:PORT"));
            }
            let (id, address) = item
                .split_once('=')
                .ok_or_else(|| wrong("there is no '='; each is ID=HOST:PORT"))?;
            let (id, address) = (id.trim(), address.trim());
            let id = number(id).map_err(|error| wrong(&format!("its id, {error}")))?;
            let (host, port) = address
                .rsplit_once(':')
                .ok_or_else(|| wrong("its address is not HOST:PORT"))?;
            if host.is_empty() {
                return Err(wrong("its address has no host"));
            }
            match port.parse::<u16>() {
                Ok(0) | Err(_) => Err(wrong("its port is not a number from 1 to 65535")),
                Ok(_) => Ok((NodeId(id), address.to_owned())),
            }
        })
        .collect()
}

/// `ID=NAME`, separated by commas.
pub(super) fn names(list: &str) -> Result<BTreeMap<NodeId, String>, String> {
    let mut names = BTreeMap::new();
    for (at, item) in list.split(',').enumerate() {
        let wrong = |what: &str| format!("item {} ({item:?}): {what}", at + 1);
        let (id, name) = item
            .split_once('=')
            .ok_or_else(|| wrong("there is no '='; each is ID=NAME"))?;
        let id = number(id.trim()).map_err(|error| wrong(&format!("its id, {error}")))?;
        if names.insert(NodeId(id), name.trim().to_owned()).is_some() {
            return Err(wrong("this node has a name already"));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_peers_is_read() {
        let read = peers("1=127.0.0.1:7001, 2=host:7002,3=[::1]:7003").unwrap();
        let expected = [(1, "127.0.0.1:7001"), (2, "host:7002"), (3, "[::1]:7003")];
        assert_eq!(
            read,
            expected.map(|(id, address)| (NodeId(id), address.to_owned()))
        );
    }

    #[test]
    fn a_duplicate_is_left_for_the_node_to_name() {
        assert_eq!(peers("1=a:1,1=b:2").unwrap().len(), 2);
    }

    #[test]
    fn each_malformed_item_is_named_with_what_is_wrong() {
        for (list, expected) in [
            ("", "item 1 (\"\"): it is empty"),
            ("1=a:1,", "item 2 (\"\"): it is empty"),
            ("1=a:1,,2=b:1", "item 2"),
            ("127.0.0.1:7001", "no '='"),
            ("=a:1", "its id, \"\" is not a number"),
            ("one=a:1", "its id, \"one\" is not a number"),
            ("+1=a:1", "is not a number"),
            ("-1=a:1", "is not a number"),
            ("99999999999999999999=a:1", "is too large a number"),
            ("1=", "not HOST:PORT"),
            ("1=host", "not HOST:PORT"),
            ("1=:7001", "no host"),
            ("1=host:", "its port"),
            ("1=host:0", "its port"),
            ("1=host:65536", "its port"),
        ] {
            let error = peers(list).unwrap_err();
            assert!(
                error.contains(expected) && error.starts_with("item "),
                "{list}: {error}"
            );
        }
    }

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1h 30min"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "64 parsecs", "-1"] {
            assert!(
                bytes(wrong).unwrap_err().contains("no size like"),
                "{wrong}"
            );
        }
        // A bare number could be seconds or milliseconds.
        for wrong in ["", "10", "10 parsecs", "-1s"] {
            assert!(
                duration(wrong).unwrap_err().contains("no duration like"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn names_of_nodes_are_read() {
        let read = names("1=a.example, 2 = b.example").unwrap();
        let expected = [(1, "a.example"), (2, "b.example")];
        assert!(
            read.into_iter()
                .eq(expected.map(|(id, name)| (NodeId(id), name.to_owned())))
        );
        for (list, expected) in [
            ("a.example", "there is no '='"),
            ("1=a,x=b", "item 2 (\"x=b\"): its id, \"x\" is not a number"),
            ("1=a,1=b", "item 2 (\"1=b\"): this node has a name"),
        ] {
            let error = names(list).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_can_be_off_says_so() {
        assert_eq!(or_off("off", number), Ok(None));
        assert_eq!(or_off("7", number), Ok(Some(7)));
        let error = or_off("none", number).unwrap_err();
        assert!(error.ends_with("or \"off\""), "{error}");
    }
}
