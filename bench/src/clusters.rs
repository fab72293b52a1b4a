//! One cluster after the other, each for as many loads as it suits.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::cluster::{Cluster, Shape};

/// The cluster of the last load, which may do for the next one.
pub(crate) struct Clusters {
    last: Option<(Shape, Cluster)>,
    /// Whether all nodes of all so far were handed the same commands.
    pub(crate) delivered: bool,
}

impl Default for Clusters {
    fn default() -> Self {
        Self {
            last: None,
            delivered: true,
        }
    }
}

impl Clusters {
    /// One of this shape, warm.
    pub(crate) fn of(&mut self, shape: Shape, data: &Path) -> Result<&mut Cluster> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != shape) {
            self.end()?;
            let mut cluster = Cluster::start(shape.clone(), data)?;
            cluster.warm()?;
            self.last = Some((shape, cluster));
        }
        let (_, cluster) = self.last.as_mut().context("a cluster")?;
        Ok(cluster)
    }

    /// Ends the last one in order.
    pub(crate) fn end(&mut self) -> Result<()> {
        if let Some((_, mut cluster)) = self.last.take() {
            self.delivered &= cluster.all_delivered()?;
            cluster.end()?;
        }
        Ok(())
    }
}
