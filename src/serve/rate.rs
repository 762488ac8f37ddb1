//! How fast one client may ask.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses that are remembered.
const ADDRESSES: usize = 65_536;

/// A bucket for each address: so many requests a second, and as many at once as
/// in one second.
pub struct Rates {
    rate: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    /// `rate` requests a second; 0 for no limit.
    pub fn new(rate: u32) -> Self {
        Self {
            rate: f64::from(rate),
            buckets: Mutex::default(),
        }
    }

    /// Takes one request of an address, or says how long to wait for one.
    pub fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        if self.rate == 0.0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= ADDRESSES {
            // A full bucket is as good as none.
            buckets.retain(|_, bucket| bucket.after(now, self.rate) < self.rate);
            if buckets.len() >= ADDRESSES {
                return Err(Duration::from_secs(1));
            }
        }
        let full = Bucket {
            left: self.rate,
            at: now,
        };
        let bucket = buckets.entry(client(address)).or_insert(full);
        bucket.left = bucket.after(now, self.rate);
        bucket.at = now;
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.left) / self.rate))
    }
}

impl Bucket {
    /// What it holds after a while.
    fn after(&self, now: Instant, rate: f64) -> f64 {
        let filled = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        (self.left + filled).min(rate)
    }
}

/// Who has an address: in IPv6, one client has 64 bits of them.
pub fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            const NETWORK: u128 = !0 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & NETWORK))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_rate() {
        let rates = Rates::new(3);
        let begin = Instant::now();
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        for _ in 0..3 {
            assert_eq!(rates.take(a, begin), Ok(()));
        }
        let pause = rates.take(a, begin).unwrap_err();
        assert!(pause > Duration::from_millis(300) && pause < Duration::from_millis(400));
        assert_eq!(rates.take(b, begin), Ok(()));
        let later = begin + Duration::from_millis(400);
        assert_eq!(rates.take(a, later), Ok(()));
        assert!(rates.take(a, later).is_err());
        assert_eq!(Rates::new(0).take(a, begin), Ok(()));
    }

    #[test]
    fn a_network_is_one_client() {
        let [a, b, c, d] = [
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8:0:1::1",
            "::ffff:192.0.2.1",
        ]
        .map(|text| client(text.parse().unwrap()));
        assert_eq!(a, b);
        assert_ne!(a, c);
        assert_eq!(d, "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let rates = Rates::new(1);
        let begin = Instant::now();
        for number in 0..ADDRESSES + 10 {
            let address = IpAddr::from((number as u32).to_be_bytes());
            let _ = rates.take(address, begin);
        }
        assert!(rates.buckets.lock().unwrap().len() <= ADDRESSES);
        let later = begin + Duration::from_secs(2);
        assert_eq!(rates.take("203.0.113.1".parse().unwrap(), later), Ok(()));
        assert_eq!(rates.buckets.lock().unwrap().len(), 1);
    }
}
