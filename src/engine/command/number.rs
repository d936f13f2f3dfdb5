//! Numbers as Redis reads them.

use super::refusal::Refusal;

/// A 64-bit signed integer in its only canonical form: no blank, no plus, no leading zero.
///
/// ```
/// use ringdove::engine::command::parse_integer;
/// assert_eq!(parse_integer(b"-9223372036854775808"), Some(i64::MIN));
/// assert_eq!(parse_integer(b"007"), None);
/// ```
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() || digits.len() > 19 || (digits[0] == b'0' && (digits.len() > 1 || negative)) {
        return None;
    }
    let mut value = 0u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // At most 19 digits: below 10^19, which fits.
        value = value * 10 + u64::from(digit - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// Checks that `text` names the one database there is: 0.
///
/// # Errors
/// With Redis's text if it is another, or no number.
pub(crate) fn check_database(text: &[u8]) -> Result<(), Refusal> {
    let index = parse_integer(text).ok_or(Refusal::NotInteger)?;
    match i32::try_from(index) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Refusal::DatabaseIndex),
        Err(_) => Err(Refusal::NotInt),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_integer;

    #[test]
    fn only_the_canonical_form_of_what_fits() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("9999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), value, "{text:?}");
        }
    }
}
