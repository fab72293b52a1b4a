//! What the machine allows one proposal: a sync of its own on each of three logs at once, and a round trip to a peer.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

/// So many logs are written at once, one on each node of a cluster.
const WRITERS: usize = 3;
/// What a round trip carries.
const MESSAGE: usize = 256;

/// Medians, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Physics {
    /// `fdatasync` of one appended message, with three writers at once.
    pub(crate) fdatasync_us: f64,
    /// A message to another thread over loopback TCP, and back.
    pub(crate) round_trip_us: f64,
}

impl Physics {
    /// Measures both, each for as long as `time`, the files in a folder of their own below `data`.
    pub(crate) fn measure(data: &Path, time: Duration) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("bench-physics-")
            .tempdir_in(data)?;
        Ok(Self {
            fdatasync_us: fdatasync_us(folder.path(), time).context("cannot measure fdatasync")?,
            round_trip_us: round_trip_us(time).context("cannot measure a round trip")?,
        })
    }

    /// Less than both one after the other, no proposal that waits for a disk and a peer can take.
    pub(crate) fn bound_us(&self) -> f64 {
        self.fdatasync_us + self.round_trip_us
    }
}

fn fdatasync_us(folder: &Path, time: Duration) -> Result<f64> {
    let end = Instant::now() + time;
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let path = folder.join(number.to_string());
            thread::spawn(move || -> Result<Vec<u64>> {
                let mut file = File::create(&path)?;
                let mut times = Vec::new();
                while Instant::now() < end {
                    let before = Instant::now();
                    file.write_all(&[0x5a; MESSAGE])?;
                    file.sync_data()?;
                    times.push(before.elapsed().as_nanos() as u64);
                }
                fs::remove_file(path)?;
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for writer in writers {
        times.extend(writer.join().map_err(|_| anyhow!("a writer panicked"))??);
    }
    Ok(median_us(times))
}

fn round_trip_us(time: Duration) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    }
    let echo = thread::spawn(move || -> std::io::Result<()> {
        let mut message = [0; MESSAGE];
        // Ends when the other side is dropped.
        while far.read_exact(&mut message).is_ok() {
            far.write_all(&message)?;
        }
        Ok(())
    });
    let end = Instant::now() + time;
    let (mut message, mut times) = ([0x5a; MESSAGE], Vec::new());
    while Instant::now() < end {
        let before = Instant::now();
        near.write_all(&message)?;
        near.read_exact(&mut message)?;
        times.push(before.elapsed().as_nanos() as u64);
    }
    drop(near);
    echo.join().map_err(|_| anyhow!("the echo panicked"))??;
    Ok(median_us(times))
}

fn median_us(mut nanos: Vec<u64>) -> f64 {
    nanos.sort_unstable();
    nanos.get(nanos.len() / 2).copied().unwrap_or(0) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_measured_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let physics = Physics::measure(folder.path(), Duration::from_millis(50)).unwrap();
        assert!(
            physics.fdatasync_us > 0.0 && physics.round_trip_us > 0.0,
            "{physics:?}"
        );
        assert!(physics.bound_us() > physics.round_trip_us);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median_us(vec![9_000, 1_000, 2_500]), 2.5);
    }
}
