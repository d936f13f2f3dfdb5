//! The options of SET and GETEX, and expiry arguments in general.

use super::number::parse_integer;
use super::refusal::Refusal;

/// The unit and the origin of an expiry argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpiryUnit {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Millis,
    /// Seconds since the Unix epoch.
    UnixSeconds,
    /// Milliseconds since the Unix epoch.
    UnixMillis,
}

/// Which of the options a command knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    /// SET: NX, XX, GET, KEEPTTL and expiries.
    Set,
    /// GETEX: PERSIST and expiries.
    GetEx,
}

/// Options as given.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SetOptions<'a> {
    pub nx: bool,
    pub xx: bool,
    pub get: bool,
    pub keep_ttl: bool,
    pub persist: bool,
    pub expiry: Option<(ExpiryUnit, &'a [u8])>,
}

impl<'a> SetOptions<'a> {
    /// Parses what follows the key, and the value if there is one.
    pub fn parse(options: &[&'a [u8]], grammar: Grammar) -> Result<SetOptions<'a>, Refusal> {
        let set = grammar == Grammar::Set;
        let mut parsed = SetOptions::default();
        let mut rest = options.iter();
        while let Some(option) = rest.next() {
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if set && is("NX") && !parsed.xx {
                parsed.nx = true;
            } else if set && is("XX") && !parsed.nx {
                parsed.xx = true;
            } else if set && is("GET") {
                parsed.get = true;
            } else if set && is("KEEPTTL") && parsed.expiry.is_none() {
                parsed.keep_ttl = true;
            } else if !set && is("PERSIST") && parsed.expiry.is_none() {
                parsed.persist = true;
            } else {
                let unit = unit_of(option).ok_or(Refusal::Syntax)?;
                let other_unit = parsed.expiry.is_some_and(|(earlier, _)| earlier != unit);
                if other_unit || parsed.keep_ttl || parsed.persist {
                    return Err(Refusal::Syntax);
                }
                parsed.expiry = Some((unit, rest.next().ok_or(Refusal::Syntax)?));
            }
        }
        Ok(parsed)
    }

    /// The absolute expiry in wall milliseconds, if one was given.
    pub fn expire_at(&self, now_ms: u64, command: &'static str) -> Result<Option<u64>, Refusal> {
        let Some((unit, amount)) = self.expiry else { return Ok(None) };
        positive_expiry(amount, unit, now_ms, command).map(Some)
    }
}

fn unit_of(option: &[u8]) -> Option<ExpiryUnit> {
    let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
    if is("EX") {
        Some(ExpiryUnit::Seconds)
    } else if is("PX") {
        Some(ExpiryUnit::Millis)
    } else if is("EXAT") {
        Some(ExpiryUnit::UnixSeconds)
    } else if is("PXAT") {
        Some(ExpiryUnit::UnixMillis)
    } else {
        None
    }
}

/// The absolute expiry in wall milliseconds of an argument that must be positive.
pub(super) fn positive_expiry(
    amount: &[u8],
    unit: ExpiryUnit,
    now_ms: u64,
    command: &'static str,
) -> Result<u64, Refusal> {
    let amount = parse_integer(amount).ok_or(Refusal::NotInteger)?;
    if amount <= 0 {
        return Err(Refusal::InvalidExpire(command));
    }
    let at_ms = expiry(amount, unit, now_ms, command)?;
    Ok(at_ms.unsigned_abs())
}

/// The absolute expiry in wall milliseconds of any argument; it may lie in the past, even before
/// the Unix epoch.
pub(super) fn expiry(
    amount: i64,
    unit: ExpiryUnit,
    now_ms: u64,
    command: &'static str,
) -> Result<i64, Refusal> {
    let seconds = matches!(unit, ExpiryUnit::Seconds | ExpiryUnit::UnixSeconds);
    let relative = matches!(unit, ExpiryUnit::Seconds | ExpiryUnit::Millis);
    let millis = if seconds { amount.checked_mul(1_000) } else { Some(amount) };
    let base = if relative { i64::try_from(now_ms).unwrap_or(i64::MAX) } else { 0 };
    millis.and_then(|millis| millis.checked_add(base)).ok_or(Refusal::InvalidExpire(command))
}
