//! Extended-precision floating point: what INCRBYFLOAT computes with.
//!
//! Redis adds in the 80-bit format of the x87 (64 bits of mantissa) and prints with 17 decimals,
//! trailing zeros trimmed. `f64` would print 0.1 + 0.2 as 0.30000000000000004 where Redis says 0.3,
//! so the format is computed here: parsing, adding and printing each round once, to nearest even.

use std::cmp::Ordering;

/// Decimals printed, before trailing zeros go.
const DECIMALS: u32 = 17;
/// Longer texts are no numbers.
const TEXT_BYTES_MAX: usize = 5 * 1024;
/// Exponents beyond this are infinite, or zero, whatever the digits.
const DECIMAL_EXPONENT_MAX: i64 = 20_000;
/// Values of 2^16384 and more are infinite.
const BINARY_EXPONENT_MAX: i64 = 16_384;
/// The least positive value is 2^-16445.
const BINARY_EXPONENT_MIN: i64 = -16_445;

/// `±mantissa × 2^exponent`, the mantissa's highest bit being set unless it is zero; or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extended {
    negative: bool,
    infinite: bool,
    mantissa: u64,
    exponent: i32,
}

impl Extended {
    pub const ZERO: Extended = Extended { negative: false, infinite: false, mantissa: 0, exponent: 0 };

    /// Reads what C's `strtold` reads, as a whole: decimal or `0x` hexadecimal digits with a point
    /// and an exponent, or `inf`. `None` for anything else, NaN, and what overflows or vanishes.
    pub fn parse(text: &[u8]) -> Option<Extended> {
        if text.len() >= TEXT_BYTES_MAX {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Some(Extended { negative, infinite: true, mantissa: 0, exponent: 0 });
        }
        let magnitude = match text {
            [b'0', b'x' | b'X', digits @ ..] => Literal::parse(digits, 16, b'p')?.round_hexadecimal(),
            _ => Literal::parse(text, 10, b'e')?.round_decimal(),
        }?;
        Some(Extended { negative, ..magnitude })
    }

    /// The sum, rounded once; `None` if it is infinite or no number.
    pub fn add(self, other: Extended) -> Option<Extended> {
        if self.infinite || other.infinite {
            return None;
        }
        if self.mantissa == 0 || other.mantissa == 0 {
            return Some(if self.mantissa == 0 { other } else { self });
        }
        let (big, small) = if (self.exponent, self.mantissa) >= (other.exponent, other.mantissa) {
            (self, other)
        } else {
            (other, self)
        };
        // 62 bits below the larger mantissa, the lowest of which stands for all that is shifted out.
        let gap = (big.exponent - small.exponent) as u32;
        let a = u128::from(big.mantissa) << 62;
        let exact = u128::from(small.mantissa) << 62;
        let mut b = exact.checked_shr(gap).unwrap_or(0);
        if gap > 0 && (gap >= 128 || b << gap != exact) {
            b |= 1;
        }
        let sum = if big.negative == small.negative { a + b } else { a - b };
        let sum = round(sum, false, i64::from(big.exponent) - 62)?;
        Some(Extended { negative: big.negative && sum.mantissa != 0, ..sum })
    }

    /// Plain decimal digits, at most 17 after the point, no trailing zero; `None` if infinite.
    pub fn to_decimal(self) -> Option<String> {
        if self.infinite {
            return None;
        }
        let mut text = if self.exponent >= 0 {
            let mut integer = Natural::from(self.mantissa);
            integer.shift_left(self.exponent as u32);
            integer.to_decimal()
        } else {
            let scaled = u128::from(self.mantissa) * 10u128.pow(DECIMALS);
            let scaled = shift_right_rounding(scaled, self.exponent.unsigned_abs());
            let unit = 10u128.pow(DECIMALS);
            let text = format!("{}.{:017}", scaled / unit, scaled % unit);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        if self.negative && text != "0" {
            text.insert(0, '-');
        }
        Some(text)
    }
}

/// `value / 2^bits`, to nearest even.
fn shift_right_rounding(value: u128, bits: u32) -> u128 {
    if bits >= 128 {
        return 0;
    }
    let quotient = value >> bits;
    let (rest, half) = (value - (quotient << bits), 1u128 << (bits - 1));
    match rest.cmp(&half) {
        Ordering::Less => quotient,
        Ordering::Greater => quotient + 1,
        Ordering::Equal => quotient + (quotient & 1),
    }
}

/// `value × 2^exponent`, and a little more if `inexact`, to 64 bits; `None` if that overflows.
fn round(value: u128, inexact: bool, exponent: i64) -> Option<Extended> {
    if value == 0 {
        return Some(Extended::ZERO);
    }
    let bits = 128 - value.leading_zeros();
    if bits <= 64 {
        let shift = 64 - bits;
        return finite((value as u64) << shift, exponent - i64::from(shift));
    }
    let shift = bits - 64;
    // A remainder beyond `value` only matters where it breaks a tie.
    let value = if inexact { value | 1 } else { value };
    let rounded = shift_right_rounding(value, shift);
    match u64::try_from(rounded) {
        Ok(mantissa) => finite(mantissa, exponent + i64::from(shift)),
        Err(_) => finite(1 << 63, exponent + i64::from(shift) + 1),
    }
}

fn finite(mantissa: u64, exponent: i64) -> Option<Extended> {
    if exponent + 64 > BINARY_EXPONENT_MAX || exponent + 64 < BINARY_EXPONENT_MIN {
        return None;
    }
    Some(Extended { negative: false, infinite: false, mantissa, exponent: exponent as i32 })
}

/// Digits with a point and an exponent.
struct Literal {
    digits: Natural,
    /// Digits after the point.
    fraction_len: i64,
    exponent: i64,
}

impl Literal {
    fn parse(text: &[u8], radix: u32, exponent_mark: u8) -> Option<Literal> {
        let mut literal = Literal { digits: Natural::default(), fraction_len: 0, exponent: 0 };
        let (mut seen_digit, mut seen_point) = (false, false);
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            if byte == b'.' && !seen_point {
                seen_point = true;
            } else if let Some(digit) = char::from(byte).to_digit(radix) {
                literal.digits.multiply_add(radix, digit);
                literal.fraction_len += i64::from(seen_point);
                seen_digit = true;
            } else {
                break;
            }
            at += 1;
        }
        if !seen_digit {
            return None;
        }
        match text.get(at) {
            None => Some(literal),
            Some(mark) if mark.eq_ignore_ascii_case(&exponent_mark) => {
                let (negative, digits) = match &text[at + 1..] {
                    [b'-', rest @ ..] => (true, rest),
                    [b'+', rest @ ..] => (false, rest),
                    rest => (false, rest),
                };
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                let magnitude = digits.iter().fold(0i64, |value, digit| {
                    (value * 10 + i64::from(digit - b'0')).min(4 * DECIMAL_EXPONENT_MAX)
                });
                literal.exponent = if negative { -magnitude } else { magnitude };
                Some(literal)
            }
            Some(_) => None,
        }
    }

    fn round_hexadecimal(self) -> Option<Extended> {
        let (value, inexact, shift) = self.digits.leading_bits();
        round(value, inexact, self.exponent - 4 * self.fraction_len + i64::from(shift))
    }

    fn round_decimal(mut self) -> Option<Extended> {
        let exponent = self.exponent - self.fraction_len;
        if self.digits.is_zero() {
            return Some(Extended::ZERO);
        }
        if exponent.abs() > DECIMAL_EXPONENT_MAX {
            return None;
        }
        let mut binary_exponent = 0;
        let mut inexact = false;
        if exponent >= 0 {
            for _ in 0..exponent {
                self.digits.multiply_add(10, 0);
            }
        } else {
            // Room for 10^-exponent (3.33 bits a digit) and the 64 bits of the result with guards.
            let room = (exponent.unsigned_abs() * 333 / 100 + 70) as u32;
            self.digits.shift_left(room);
            binary_exponent = -i64::from(room);
            for _ in 0..exponent.unsigned_abs() {
                inexact |= self.digits.divide(10) != 0;
            }
        }
        let (value, cut, shift) = self.digits.leading_bits();
        round(value, inexact || cut, binary_exponent + i64::from(shift))
    }
}

/// A natural number of any size, lowest 32 bits first, no leading zero.
#[derive(Clone, Debug, Default)]
struct Natural(Vec<u32>);

impl From<u64> for Natural {
    fn from(value: u64) -> Natural {
        let mut natural = Natural(vec![value as u32, (value >> 32) as u32]);
        natural.trim();
        natural
    }
}

impl Natural {
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(carry as u32);
        }
    }

    /// Divides in place; the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0u64;
        for limb in self.0.iter_mut().rev() {
            rest = rest << 32 | u64::from(*limb);
            *limb = (rest / u64::from(divisor)) as u32;
            rest %= u64::from(divisor);
        }
        self.trim();
        rest as u32
    }

    fn shift_left(&mut self, bits: u32) {
        if self.is_zero() {
            return;
        }
        self.multiply_add(1 << (bits % 32), 0);
        let limbs = (bits / 32) as usize;
        self.0.splice(0..0, std::iter::repeat_n(0, limbs));
    }

    /// The highest bits (up to 128), whether any below them is set, and how many those are.
    fn leading_bits(&self) -> (u128, bool, u32) {
        let low = self.0.len().saturating_sub(4);
        let value = self.0[low..].iter().rev().fold(0u128, |value, &limb| value << 32 | u128::from(limb));
        (value, self.0[..low].iter().any(|&limb| limb != 0), low as u32 * 32)
    }

    fn to_decimal(&self) -> String {
        let mut rest = self.clone();
        let mut chunks = Vec::new();
        while !rest.is_zero() {
            chunks.push(rest.divide(1_000_000_000));
        }
        let mut text = chunks.pop().unwrap_or(0).to_string();
        for chunk in chunks.iter().rev() {
            text.push_str(&format!("{chunk:09}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &str, b: &str, expected: &str) {
        let sum = Extended::parse(a.as_bytes()).unwrap().add(Extended::parse(b.as_bytes()).unwrap());
        assert_eq!(sum.and_then(Extended::to_decimal).as_deref().unwrap_or("infinite"), expected, "{a} + {b}");
    }

    #[test]
    fn sums_print_as_redis_prints_them() {
        check("0.1", "0.2", "0.3");
        check("10.50", "0.1", "10.6");
        check("5.0e3", "2.0e2", "5200");
        check("3", "-3", "0");
        check("-1e-30", "0", "0");
        check("1", "-0.75", "0.25");
        check("0", "1e20", "100000000000000000000");
        check("0x10", "0", "16");
        check("0x.8p1", "0", "1");
        check("1e4932", "1e4932", "infinite");
        check("inf", "1", "infinite");
        check("3.0e3", "1.5", "3001.5");
        check(".5", "5.", "5.5");
        check("1", "1e-17", "1.00000000000000001");
        check("123456789012345678", "0.5", "123456789012345678.5");
        check("-0", "0", "0");
    }

    #[test]
    fn texts_that_are_no_number() {
        for text in ["", " 1", "1 ", "abc", "1e", "1e+", ".", "-", "1.2.3", "nan", "0x", "1e99999", "1f", "--1"] {
            assert_eq!(Extended::parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
