//! `--waves 1,region,25%,all`: how a rollout grows.

use std::fmt;
use std::str::FromStr;

/// How many hosts a wave takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wave {
    /// So many.
    Hosts(usize),
    /// What is left of the regions that were begun: those of the canaries.
    Region,
    /// A share of all selected hosts, in percent, rounded up.
    Share(u32),
    /// All that are left.
    All,
}

/// The waves, in order; the last is [`Wave::All`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waves(Vec<Wave>);

/// What is wrong with a list of waves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WavesError {
    /// One of them.
    #[error("{0:?} is not a wave: give a number of hosts, a share like 25%, `region` or `all` (like 1,region,25%,all)")]
    Wave(String),
    /// Hosts would be left.
    #[error("the last wave must be `all`, or hosts would be left out without a word (like 1,region,25%,all)")]
    Last,
    /// Nothing would be left.
    #[error("`all` can only be the last wave")]
    AllEarly,
    /// No host decides the region.
    #[error("`region` is the region of the hosts before it: begin with a number (like 1,region,all)")]
    RegionFirst,
}

impl Waves {
    /// The waves.
    pub fn iter(&self) -> impl Iterator<Item = Wave> + '_ {
        self.0.iter().copied()
    }
}

impl Default for Waves {
    fn default() -> Self {
        Self(vec![Wave::Hosts(1), Wave::Region, Wave::Share(25), Wave::All])
    }
}

impl FromStr for Waves {
    type Err = WavesError;

    fn from_str(text: &str) -> Result<Self, WavesError> {
        let wave = |word: &str| {
            let bad = || WavesError::Wave(word.to_owned());
            match word.strip_suffix('%') {
                Some(share) => match share.trim().parse() {
                    Ok(share @ 1..=100) => Ok(Wave::Share(share)),
                    _ => Err(bad()),
                },
                None if word == "region" => Ok(Wave::Region),
                None if word == "all" => Ok(Wave::All),
                None => match word.parse() {
                    Ok(hosts @ 1..) => Ok(Wave::Hosts(hosts)),
                    _ => Err(bad()),
                },
            }
        };
        let waves = text.split(',').map(|w| wave(w.trim())).collect::<Result<Vec<_>, _>>()?;
        match waves.as_slice() {
            [Wave::Region, ..] => Err(WavesError::RegionFirst),
            [before @ .., Wave::All] if before.contains(&Wave::All) => Err(WavesError::AllEarly),
            [.., Wave::All] => Ok(Self(waves)),
            _ => Err(WavesError::Last),
        }
    }
}

impl fmt::Display for Waves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, wave) in self.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            match wave {
                Wave::Hosts(n) => write!(f, "{n}")?,
                Wave::Region => f.write_str("region")?,
                Wave::Share(share) => write!(f, "{share}%")?,
                Wave::All => f.write_str("all")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_it_says() {
        assert_eq!(Waves::default().to_string(), "1,region,25%,all");
        assert_eq!("1, region ,25%,all".parse(), Ok(Waves::default()));
    }

    #[test]
    fn waves_that_leave_hosts_out_or_mean_nothing_are_refused() {
        for (text, says) in [
            ("1,2", "must be `all`"),
            ("all,1,all", "only be the last"),
            ("region,all", "begin with a number"),
            ("0,all", "\"0\" is not a wave"),
            ("101%,all", "\"101%\""),
            ("", "\"\" is not a wave"),
            ("one,all", "\"one\""),
            ("-1,all", "\"-1\""),
        ] {
            let error = text.parse::<Waves>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
