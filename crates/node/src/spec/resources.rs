//! Requests and limits as cgroup numbers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::qos::Qos;
use crate::runtime::Resources;

pub const CPU_PERIOD_US: i64 = 100_000;
const CPU_SHARES_MIN: i64 = 2;
const CPU_SHARES_MAX: i64 = 262_144;
const CPU_QUOTA_US_MIN: i64 = 1000;

/// A quantity in thousandths, saturated. What is not a quantity counts as nothing: the API validated it.
pub fn quantity(quantity: &Quantity) -> i128 {
    parse_milli(&quantity.0).unwrap_or(0)
}

pub fn milli(map: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<i64> {
    let value = quantity(map?.get(name)?);
    Some(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Whole units, rounded up.
pub fn whole(map: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<i64> {
    let value = quantity(map?.get(name)?);
    Some(i64::try_from((value + 999).div_euclid(1000)).unwrap_or(i64::MAX))
}

fn parse_milli(text: &str) -> Option<i128> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (mantissa, exponent) = match suffix {
        "" => (1_000_000_000i128, 0),
        "n" => (1, 0),
        "u" => (1_000, 0),
        "m" => (1_000_000, 0),
        "k" => (1_000_000_000, 3),
        "M" => (1_000_000_000, 6),
        "G" => (1_000_000_000, 9),
        "T" => (1_000_000_000, 12),
        "P" => (1_000_000_000, 15),
        "E" => (1_000_000_000, 18),
        "Ki" => (1_000_000_000 << 10, 0),
        "Mi" => (1_000_000_000 << 20, 0),
        "Gi" => (1_000_000_000 << 30, 0),
        "Ti" => (1_000_000_000 << 40, 0),
        "Pi" => (1_000_000_000 << 50, 0),
        "Ei" => (1_000_000_000 << 60, 0),
        _ => (1_000_000_000, suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?),
    };
    // Up to nine decimals count; finer than that rounds up to a thousandth anyway.
    let negative = number.starts_with('-');
    let number = number.trim_start_matches(['+', '-']);
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let units: i128 = format!("{}{fraction}", if integer.is_empty() { "0" } else { integer }).parse().ok()?;
    let scale = 10i128.checked_pow(exponent.unsigned_abs())?;
    // units are nano-units of the number; mantissa is in nano too: nano * nano / 10^15 = milli.
    let product = units.checked_mul(mantissa)?;
    let product = if exponent < 0 { product / scale } else { product.checked_mul(scale)? };
    let milli = product.div_euclid(10i128.pow(15)) + i128::from(product.rem_euclid(10i128.pow(15)) != 0);
    Some(if negative { -milli } else { milli })
}

pub fn shares(milli_cpu: i64) -> i64 {
    (milli_cpu * 1024 / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

pub fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu * CPU_PERIOD_US / 1000).max(CPU_QUOTA_US_MIN) }
}

/// What one container may use.
pub fn of_container(resources: Option<&core::ResourceRequirements>, qos: Qos, machine_memory: i64) -> Resources {
    let requests = resources.and_then(|r| r.requests.as_ref());
    let limits = resources.and_then(|r| r.limits.as_ref());
    let cpu_limit = milli(limits, "cpu");
    let cpu_request = milli(requests, "cpu").or(cpu_limit).unwrap_or(0);
    let memory_limit = whole(limits, "memory").unwrap_or(0);
    let memory_request = whole(requests, "memory").unwrap_or(memory_limit);
    let hugepages = limits.into_iter().flatten().filter_map(|(name, value)| {
        let size = name.strip_prefix("hugepages-")?.trim_end_matches('i');
        Some((format!("{size}B"), u64::try_from(quantity(value) / 1000).ok()?))
    });
    Resources {
        cpu_period_us: CPU_PERIOD_US,
        cpu_quota_us: quota(cpu_limit.unwrap_or(0)),
        cpu_shares: shares(cpu_request),
        memory_limit_bytes: memory_limit,
        oom_score_adj: oom_score_adj(qos, memory_request, machine_memory),
        hugepages: hugepages.collect(),
        ..Resources::default()
    }
}

/// Upstream's formula: the less of its request a container would free, the later it dies.
fn oom_score_adj(qos: Qos, memory_request: i64, machine_memory: i64) -> i64 {
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let share = 1000i128 * i128::from(memory_request) / i128::from(machine_memory.max(1));
            (1000 - i64::try_from(share).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

/// Requests and limits of a whole pod for its cgroup: (cpu request, cpu limit if all have one, memory limit if all
/// have one).
pub fn of_pod(spec: &core::PodSpec) -> (i64, Option<i64>, Option<i64>) {
    let of = |container: &core::Container| {
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|r| r.limits.as_ref());
        let requests = resources.and_then(|r| r.requests.as_ref());
        let cpu_limit = milli(limits, "cpu").filter(|value| *value != 0);
        let cpu = milli(requests, "cpu").or(cpu_limit).unwrap_or(0);
        (cpu, cpu_limit, whole(limits, "memory").filter(|value| *value != 0))
    };
    let add = |a: Option<i64>, b: Option<i64>| Some(a?.saturating_add(b?));
    let mut total = (0i64, Some(0i64), Some(0i64));
    for one in spec.containers.iter().map(of) {
        total = (total.0 + one.0, add(total.1, one.1), add(total.2, one.2));
    }
    let mut sidecars = (0i64, Some(0i64), Some(0i64));
    let mut peak = (0i64, Some(0i64), Some(0i64));
    let max = |a: Option<i64>, b: Option<i64>| Some(a?.max(b?));
    for init in spec.init_containers.iter().flatten() {
        let one = of(init);
        let with = (sidecars.0 + one.0, add(sidecars.1, one.1), add(sidecars.2, one.2));
        peak = (peak.0.max(with.0), max(peak.1, with.1), max(peak.2, with.2));
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars = with;
        }
    }
    total = (total.0 + sidecars.0, add(total.1, sidecars.1), add(total.2, sidecars.2));
    let total = (total.0.max(peak.0), max(total.1, peak.1), max(total.2, peak.2));
    let pod = spec.resources.as_ref();
    let (requests, limits) = (pod.and_then(|r| r.requests.as_ref()), pod.and_then(|r| r.limits.as_ref()));
    (milli(requests, "cpu").unwrap_or(total.0), milli(limits, "cpu").or(total.1), whole(limits, "memory").or(total.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_become_thousandths() {
        let cases = [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("500u", 1),
            ("12E", 12_000_000_000_000_000_000_000),
            (".5", 500),
            ("128974848", 128_974_848_000),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse_milli(text), Some(wanted), "{text}");
        }
        assert_eq!(parse_milli("abc"), None);
    }

    #[test]
    fn cpu_becomes_shares_and_quota() {
        assert_eq!((shares(0), shares(1000), shares(250)), (2, 1024, 256));
        assert_eq!((quota(0), quota(500), quota(1)), (0, 50_000, 1000));
    }
}
