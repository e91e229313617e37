//! What a link is like.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Round-trip time and rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) rtt: Duration,
    /// Bits in a second, each way.
    pub(crate) rate: u64,
}

impl Profile {
    /// How long so many bytes take at the nominal rate, in seconds.
    pub(crate) fn seconds(&self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / self.rate as f64
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (rtt, rate) = text.split_once('/')?;
            let rtt: f64 = rtt.trim().strip_suffix("ms")?.trim().parse().ok()?;
            let rate = rate.trim().to_ascii_lowercase();
            let (number, unit) = match (rate.strip_suffix("mbit"), rate.strip_suffix("gbit")) {
                (Some(number), _) => (number, 1e6),
                (_, Some(number)) => (number, 1e9),
                _ => return None,
            };
            let rate = number.trim().parse::<f64>().ok()? * unit;
            let sensible = (0.0..=10_000.0).contains(&rtt) && (1e5..=1e12).contains(&rate);
            sensible.then(|| Self { rtt: Duration::from_secs_f64(rtt / 1000.0), rate: rate as u64 })
        };
        parse().ok_or_else(|| {
            format!("{text:?} is no link: give round-trip time and rate, such as 10ms/1gbit or 50ms/100mbit")
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms/", self.rtt.as_secs_f64() * 1000.0)?;
        let mbit = self.rate as f64 / 1e6;
        if mbit >= 1000.0 { write!(f, "{}gbit", mbit / 1000.0) } else { write!(f, "{mbit}mbit") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read_and_written() {
        for text in ["0.2ms/10gbit", "10ms/1gbit", "50ms/100mbit"] {
            let profile: Profile = text.parse().unwrap();
            assert_eq!(profile.to_string(), text);
        }
        let profile: Profile = "50ms/100mbit".parse().unwrap();
        assert_eq!((profile.rtt, profile.rate), (Duration::from_millis(50), 100_000_000));
        assert_eq!(profile.seconds(12_500_000), 1.0);
        for text in
            ["", "10ms", "10/1gbit", "10ms/1", "-1ms/1gbit", "10ms/0gbit", "NaNms/1gbit", "1ms/infgbit"]
        {
            assert!(text.parse::<Profile>().is_err(), "{text}");
        }
    }
}
