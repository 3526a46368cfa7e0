//! The faults that a lab makes.

use super::{ConnectionView, FaultId, Lab, LabError, Result, Sticks, What};

impl Lab {
    /// Swallows what `from` sends to `to` on the connections there are now; a new connection flows, so a reset heals it.
    ///
    /// # Errors
    /// Where a host is unknown or no connection carries that.
    pub fn stall(&self, from: &str, to: &str, what: What) -> Result<FaultId> {
        self.stall_on(from, to, what, Sticks::Connections)
    }

    /// The same, on these connections or on the pair for ever.
    ///
    /// # Errors
    /// Where a host is unknown or, for connections, there is none that carries that.
    pub fn stall_on(&self, from: &str, to: &str, what: What, sticks: Sticks) -> Result<FaultId> {
        let nothing = || LabError::NothingToFault {
            what: format!("no connection carries {what} from {from} to {to}"),
        };
        let ends = (self.index(from)?, self.index(to)?);
        self.inner
            .board
            .stall(ends.0, ends.1, what.clone(), sticks)
            .ok_or_else(nothing)
    }

    /// Ends a stall.
    ///
    /// # Errors
    /// Where there is no such stall.
    pub fn unstall(&self, id: FaultId) -> Result<()> {
        let known = self.inner.board.unstall(id);
        known.then_some(()).ok_or_else(|| LabError::NothingToFault {
            what: format!("no stall has the number {id}"),
        })
    }

    /// Ends all stalls, cuts and pending holds.
    ///
    /// # Errors
    /// Where a cut between namespaces cannot be ended.
    pub fn clear(&self) -> Result<()> {
        for (a, b) in self.inner.board.cuts() {
            self.mend_pair(a, b)?;
        }
        self.inner.board.clear();
        Ok(())
    }

    /// Passes nothing between two hosts. Connections hang as in a black hole; new ones hang too between namespaces, and are
    /// refused by fronts.
    ///
    /// # Errors
    /// Where a host is unknown.
    pub fn cut(&self, a: &str, b: &str) -> Result<()> {
        self.cut_pair(self.index(a)?, self.index(b)?)
    }

    /// Ends a cut; what hung goes on.
    ///
    /// # Errors
    /// Where a host is unknown or the pair is not cut.
    pub fn mend(&self, a: &str, b: &str) -> Result<()> {
        let known = self.mend_pair(self.index(a)?, self.index(b)?)?;
        known.then_some(()).ok_or_else(|| LabError::NothingToFault {
            what: format!("{a} and {b} are not cut"),
        })
    }

    /// Cuts a host from all others; the lab still reaches it.
    ///
    /// # Errors
    /// Where the host is unknown.
    pub fn isolate(&self, host: &str) -> Result<()> {
        let index = self.index(host)?;
        let mut others = (0..self.hosts().len()).filter(|other| *other != index);
        others.try_for_each(|other| self.cut_pair(index, other))
    }

    /// Ends all cuts of a host.
    ///
    /// # Errors
    /// Where the host is unknown.
    pub fn rejoin(&self, host: &str) -> Result<()> {
        let index = self.index(host)?;
        let mut others = (0..self.hosts().len()).filter(|other| *other != index);
        others.try_for_each(|other| self.mend_pair(index, other).map(drop))
    }

    /// Drops this share (in percent) of the packets that arrive at a host from other hosts; 0 ends it.
    ///
    /// # Errors
    /// Where the host is unknown, or hosts have no namespaces, or `iptables` fails.
    pub fn loss(&self, host: &str, percent: f64) -> Result<()> {
        let index = self.index(host)?;
        match &self.inner.network {
            Some(network) if (0.0..=100.0).contains(&percent) => network.loss(index, percent),
            Some(_) => Err(LabError::Spec(format!(
                "a loss of {percent} % is not between 0 and 100"
            ))),
            None => Err(LabError::Spec(
                "packets are lost between network namespaces only: start with --netns".into(),
            )),
        }
    }

    fn cut_pair(&self, a: usize, b: usize) -> Result<()> {
        if let Some(network) = &self.inner.network {
            network.cut(a, b)?;
        }
        self.inner.board.cut(a, b);
        Ok(())
    }

    fn mend_pair(&self, a: usize, b: usize) -> Result<bool> {
        let known = self.inner.board.mend(a, b);
        if let Some(network) = self.inner.network.as_ref().filter(|_| known) {
            network.mend(a, b)?;
        }
        Ok(known)
    }

    /// Resets every connection between two servers, as the loss of their sockets would; how many there were.
    ///
    /// # Errors
    /// Where a host is unknown.
    pub fn reset(&self, a: &str, b: &str) -> Result<usize> {
        Ok(self.inner.board.reset(self.index(a)?, self.index(b)?))
    }

    /// Closes `host`'s outbound gateway to `cluster` and leaves its next one without INFO for ever; later ones pass.
    ///
    /// # Errors
    /// Where the host is unknown or has no such gateway.
    pub fn hold_gateway_info(&self, host: &str, cluster: &str) -> Result<usize> {
        let index = self.index(host)?;
        if !self
            .hosts()
            .iter()
            .any(|h| h.cluster == cluster && h.cluster != self.hosts()[index].cluster)
        {
            return Err(LabError::NothingToFault {
                what: format!("{host} has no remote cluster {cluster}"),
            });
        }
        Ok(self.inner.board.hold_gateway(index, cluster))
    }

    /// The connections between servers that pass fronts.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionView> {
        self.inner.board.connections()
    }
}
