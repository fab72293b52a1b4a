//! Files that change are put to use without a restart.
//!
//! Invariants:
//! - Files are compared by what they hold, so that it does not matter how they were replaced.
//! - Three files cannot be replaced at once. What is no good counts as failed when it is still so at the next
//!   look, and is told once; it is tried again at each look, until it is good or is what is in use.
//! - They are read on a thread of their own: a disk that hangs holds up nothing.

use std::convert::Infallible;
use std::path::Display;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use humantime::format_rfc3339_seconds;
use tokio::time::MissedTickBehavior;

use super::files::{Content, Loaded};
use super::{Tls, TlsFileError};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long before its end a certificate is warned of, once a day.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What has been seen of the files.
#[derive(Debug, Default)]
pub(super) struct Watching {
    pub(super) reloads: u64,
    pub(super) reloads_failed: u64,
    /// What was wrong at the last look, and whether that was told.
    failing: Option<(String, bool)>,
    warned: Option<Instant>,
}

impl Tls {
    /// Looks at the files now, and puts them to use if they have changed; tells whether they have.
    ///
    /// It reads them, and may block.
    ///
    /// # Errors
    /// They have changed and are no good; those that were in use stay.
    pub fn reload(&self) -> Result<bool, TlsFileError> {
        let changed = self.changed().inspect_err(|error| self.failed(error))?;
        let any = changed.is_some();
        if let Some(loaded) = changed {
            self.put_to_use(loaded);
        }
        Ok(any)
    }

    /// Looks at the files for as long as this is waited for.
    pub(crate) async fn watch(&self) -> Infallible {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let tls = self.clone();
            // Should it panic, the next look tries again.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    pub(crate) fn look(&self) {
        match self.changed() {
            Ok(changed) => {
                self.watching().failing = None;
                if let Some(loaded) = changed {
                    self.put_to_use(loaded);
                }
            }
            Err(error) => {
                let text = error.to_string();
                let mut watching = self.watching();
                let told = match watching.failing.take() {
                    Some((last, told)) if last == text => Some(told),
                    _ => None,
                };
                watching.failing = Some((text, told.is_some()));
                drop(watching);
                if told == Some(false) {
                    self.failed(&error);
                }
            }
        }
        self.warn_of_expiry();
    }

    /// What the files hold, if that is not what is in use.
    fn changed(&self) -> Result<Option<Loaded>, TlsFileError> {
        let content = Content::read(&self.0.files)?;
        if content == self.loaded().content {
            return Ok(None);
        }
        Loaded::parse(content, &self.0.files, self.0.name.as_ref()).map(Some)
    }

    fn put_to_use(&self, loaded: Loaded) {
        let until = format_rfc3339_seconds(loaded.not_after);
        let in_use = self.0.loaded.write();
        *in_use.unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        let mut watching = self.watching();
        watching.reloads += 1;
        watching.warned = None;
        tracing::info!(cert = %self.cert(), %until, "TLS: new files are in use, for new connections");
    }

    /// Where the own certificate is: by it a line in the log says whose it is.
    fn cert(&self) -> Display<'_> {
        self.0.files.cert.display()
    }

    fn failed(&self, error: &TlsFileError) {
        self.watching().reloads_failed += 1;
        tracing::error!(%error, "TLS: the files have changed and are no good; the old ones stay in use");
    }

    pub(super) fn warn_of_expiry(&self) {
        let not_after = self.loaded().not_after;
        let left = not_after
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        let mut watching = self.watching();
        if left > WARN_BEFORE || watching.warned.is_some_and(|last| last.elapsed() < DAY) {
            return;
        }
        watching.warned = Some(Instant::now());
        let until = format_rfc3339_seconds(not_after);
        if left.is_zero() {
            tracing::error!(cert = %self.cert(), %until, "TLS: this node's certificate has expired: no new connection comes about");
        } else {
            let days = left.as_secs() / DAY.as_secs();
            tracing::warn!(cert = %self.cert(), %until, days, "TLS: this node's certificate expires soon");
        }
    }
}
