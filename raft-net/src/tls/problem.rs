//! What is wrong with a certificate.
//!
//! Invariant: of what this side refuses, expiry, name, chain and key are told apart; so they are of what the other
//! side refuses, as far as its TLS alert says it.

use std::io;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use super::files::Loaded;
use crate::Refusal;
use crate::refusal::printable;

/// The last second that a certificate can name: the end of the year 9999.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;
/// So many of the names that a certificate holds are shown.
const NAMES_MAX: usize = 4;

/// What is wrong with a certificate. The text goes on a sentence that begins with whose it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// Its time is over.
    #[error("has expired, at {}: renew it, or set the clocks", format_rfc3339_seconds(*.not_after))]
    Expired {
        /// When it expired; to the second.
        not_after: SystemTime,
    },
    /// Its time has not come.
    #[error("is not valid before {}: set the clocks, or wait", format_rfc3339_seconds(*.not_before))]
    NotYetValid {
        /// When it becomes valid; to the second.
        not_before: SystemTime,
    },
    /// It does not hold the name that belongs to the node: it is another node's.
    #[error(
        "does not hold the name {expected}: check that it is this node's, and the names bound to nodes"
    )]
    Name {
        /// The name that it should hold.
        expected: String,
    },
    /// No CA that is trusted has signed it.
    #[error(
        "is of a CA that is not trusted: give all nodes certificates of one CA, and all the same CA file"
    )]
    Chain,
    /// Who shows it does not hold its key.
    #[error("does not fit the key of who shows it")]
    Key,
    /// None was shown.
    #[error("was not shown: give every node --tls-ca, --tls-cert and --tls-key")]
    Missing,
    /// It cannot be used for this.
    #[error("cannot be used: {what}")]
    Unfit {
        /// Why not.
        what: String,
    },
}

impl CertificateProblem {
    /// What is wrong with a certificate that this side does not accept.
    pub(crate) fn of(error: &Error) -> Self {
        use CertificateError as E;
        let Error::InvalidCertificate(wrong) = error else {
            return match error {
                Error::NoCertificatesPresented => Self::Missing,
                error => Self::unfit(error),
            };
        };
        match wrong {
            E::ExpiredContext { not_after, .. } => Self::Expired {
                not_after: time(not_after.as_secs()),
            },
            E::NotValidYetContext { not_before, .. } => Self::NotYetValid {
                not_before: time(not_before.as_secs()),
            },
            E::NotValidForNameContext {
                expected,
                presented,
            } => {
                let mut names = presented.iter().take(NAMES_MAX).map(|name| {
                    // As the certificate library shows it: DnsName("node-1").
                    name.split('"').nth(1).unwrap_or(name).to_owned()
                });
                let names = names.by_ref().collect::<Vec<_>>().join(", ");
                let expected = expected.to_str();
                let text = match presented.len() {
                    0 => format!("{expected}, nor any other"),
                    1..=NAMES_MAX => format!("{expected}, but {names}"),
                    len => format!("{expected}, but {names} and {} more", len - NAMES_MAX),
                };
                Self::Name {
                    expected: printable(&text),
                }
            }
            E::UnknownIssuer => Self::Chain,
            E::BadSignature => Self::Key,
            wrong => Self::unfit(wrong),
        }
    }

    /// What is wrong with this node's own certificate, as the other side's alert says.
    fn of_alert(alert: AlertDescription, own: &Loaded) -> Option<Self> {
        use AlertDescription as A;
        Some(match alert {
            // One alert for both. By this node's clock it may be neither; then the nearer one is meant.
            A::CertificateExpired => {
                let now = SystemTime::now();
                let age = now.duration_since(own.not_before).unwrap_or_default();
                let left = own.not_after.duration_since(now).unwrap_or_default();
                if age < left {
                    Self::NotYetValid {
                        not_before: own.not_before,
                    }
                } else {
                    Self::Expired {
                        not_after: own.not_after,
                    }
                }
            }
            // Its encoding was verified when it was loaded: what is left of this alert's meanings is the name.
            A::BadCertificate => Self::Name {
                expected: "that the other node wants".into(),
            },
            A::UnknownCA => Self::Chain,
            A::DecryptError => Self::Key,
            A::CertificateRequired => Self::Missing,
            A::UnsupportedCertificate
            | A::CertificateUnknown
            | A::CertificateRevoked
            | A::AccessDenied => Self::Unfit {
                what: format!("the other side says {alert:?}"),
            },
            _ => return None,
        })
    }

    fn unfit(what: impl ToString) -> Self {
        Self::Unfit {
            what: printable(&what.to_string()),
        }
    }
}

/// An error of a TLS connection: a [`Refusal`], where that is what it means.
pub(crate) fn explain(error: io::Error, own: &Loaded) -> io::Error {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    let refusal = match tls {
        Some(tls @ (Error::InvalidCertificate(_) | Error::NoCertificatesPresented)) => {
            Some((false, CertificateProblem::of(tls)))
        }
        Some(Error::AlertReceived(alert)) => {
            CertificateProblem::of_alert(*alert, own).map(|problem| (true, problem))
        }
        _ => None,
    };
    match refusal {
        Some((ours, problem)) => {
            io::Error::new(error.kind(), Refusal::Certificate { ours, problem })
        }
        None => error,
    }
}

/// A time of a certificate, or one that has come from a peer.
pub(crate) fn time(unix_seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds.min(UNIX_SECONDS_MAX))
}

/// As it travels.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Now, as certificates are judged.
pub(super) fn now() -> UnixTime {
    UnixTime::now()
}
