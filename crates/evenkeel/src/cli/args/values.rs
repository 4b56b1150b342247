//! Values that flags are given as.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::SignedDuration;
use keeper::drift::Policy;

/// The shortest life that leaves time to renew.
const LIFETIME_MIN: SignedDuration = SignedDuration::from_mins(1);

/// `365d`, `12h`, `30m`.
pub fn span(text: &str) -> Result<SignedDuration, String> {
    let (count, unit) = text.char_indices().next_back().map_or((text, ""), |(at, _)| text.split_at(at));
    let minutes: i64 = match unit {
        "d" => 24 * 60,
        "h" => 60,
        "m" => 1,
        _ => return Err("a span of time reads 365d, 12h or 30m".to_owned()),
    };
    let count: u32 = count.parse().map_err(|_| "a span of time reads 365d, 12h or 30m".to_owned())?;
    let span = SignedDuration::from_mins(i64::from(count) * minutes);
    // The authorities themselves last ten years.
    if span < LIFETIME_MIN || span > SignedDuration::from_hours(24 * 3650) {
        return Err("between 1m and 3650d".to_owned());
    }
    Ok(span)
}

/// `192.0.2.9`, or with the prefix that it has on the link: `192.0.2.9/24`.
pub fn address_on_link(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let net = net.map_err(|_| "an address reads 192.0.2.9 or 192.0.2.9/24".to_owned())?;
    let address = net.addr();
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return Err(format!("{address} is no address that one machine of several can have"));
    }
    Ok(net)
}

/// `report` or `repair`.
pub fn drift_policy(text: &str) -> Result<Policy, String> {
    match text {
        "report" => Ok(Policy::Report),
        "repair" => Ok(Policy::Repair),
        _ => Err("report or repair".to_owned()),
    }
}

/// As [`span`], and `0` for a thing without an end.
pub fn span_or_ever(text: &str) -> Result<SignedDuration, String> {
    if text == "0" { Ok(SignedDuration::ZERO) } else { span(text) }
}

/// `10s`, `3m`, `1h`.
pub fn seconds(text: &str) -> Result<u32, String> {
    let bad = || "a span of time reads 10s, 3m or 1h".to_owned();
    let (count, unit) = text.char_indices().next_back().map_or((text, ""), |(at, _)| text.split_at(at));
    let each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(bad()),
    };
    let count: u32 = count.parse().map_err(|_| bad())?;
    let most = keeper::BAKE_SECONDS_MAX;
    count.checked_mul(each).filter(|seconds| *seconds <= most).ok_or_else(|| format!("at most {} h", most / 3600))
}

#[cfg(test)]
mod tests {
    use super::{address_on_link, seconds, span};
    use jiff::SignedDuration;

    #[test]
    fn spans_have_a_unit_and_limits() {
        assert_eq!(span("90d"), Ok(SignedDuration::from_hours(90 * 24)));
        assert_eq!(span("1m"), Ok(SignedDuration::from_mins(1)));
        for bad in ["", "d", "1", "0m", "1y", "-1d", "4000d", "1é"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_may_have_a_prefix() {
        assert_eq!(address_on_link("192.0.2.9").unwrap().to_string(), "192.0.2.9/32");
        assert_eq!(address_on_link("2001:db8::9/64").unwrap().to_string(), "2001:db8::9/64");
        for bad in ["", "a", "192.0.2.9/33", "127.0.0.1", "0.0.0.0/0", "ff02::1"] {
            assert!(address_on_link(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bakes_have_a_unit_and_an_end() {
        assert_eq!((seconds("10s"), seconds("3m"), seconds("0s")), (Ok(10), Ok(180), Ok(0)));
        for bad in ["10", "s", "25h", "-1s", "9999999999h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
