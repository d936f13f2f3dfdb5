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
        assert_eq!(
            sum.and_then(Extended::to_decimal).as_deref().unwrap_or("infinite"),
            expected,
            "{a} + {b}"
        );
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
    fn sums_as_redis_7_0_computed_them() {
        for (a, b, expected) in [
            ("161973070e20", "0.1", "16197306999999999999482003456"),
            ("722337", "-8.1173991612063502e-06", "722336.99999188260085248"),
            ("-8.8400215045058652e-06", "-5.706036383286766e-06", "-0.00001454605788779"),
            ("-90580", "277465547730455439.95119", "277465547730364859.953125"),
            ("-1.5096162171497205e-06", "-7.5239607770070886e-06", "-0.00000903357699416"),
            ("154.21", "53706174689235344.583705", "53706174689235498.79296875"),
            ("-161.7219128571", "-7.6441552384326331e-06", "-161.72192050125523843"),
            ("601571671e-7", "219703", "219763.15716709999999523"),
            ("2.7782693785236813e-06", "104615285e-22", "0.00000277826938899"),
            ("-8.8079766006753479e-06", "360.7999463635717348", "360.7999375555951341"),
            ("362187027677476632.488218", "8.4688276727772312e-06", "362187027677476632.5"),
            ("321872364e1", "-836.28997841", "3218722803.71002159011550248"),
            ("563925449e33", "783235913e27", "563926232235913000022755603312441334693888"),
            ("653864768e-21", "73600", "73600.0000000000006537"),
            ("872924061779031252.358671", "-156.6032910465113446", "872924061779031095.75"),
            ("0.2", "1.460518805547679e-06", "0.20000146051880555"),
            ("365203601e14", "-6.6504094020248264e-08", "36520360100000000000000"),
            ("968416921116111569.98142", "509059211e-22", "968416921116111570"),
            ("533352", "1e+17", "100000000000533352"),
            ("-0.000000000000000005", "99999999999999999999", "100000000000000000000"),
            ("769473237e19", "1e+18", "7694732370999999999640600576"),
            ("972683", "193746586134622761.640595", "193746586135595444.640625"),
            ("35349", "-542386", "-507037"),
            ("138878004e1", "572433257838510768.84495", "572433259227290808.84375"),
            ("-196.711487331391709", "948526167e-13", "-196.711392478775009"),
            ("634359960296101385.291945", "10.0", "634359960296101395.3125"),
            ("733068298e18", "-834.03061", "733068297999999999968018432"),
            ("317.03335394", "17040", "17357.03335393999999958"),
            ("-6.353142520376055e-06", "4395479e-12", "-0.00000195766352038"),
            ("425720381901042689.639434", "-3.6277663777622692e-06", "425720381901042689.625"),
            ("900.44789936531697094", "0.1", "900.54789936531697092"),
            ("784649670711318675.836630", "-2.1524218621746275e-06", "784649670711318675.8125"),
            ("119370139419610285.504913", "10.0", "119370139419610295.5078125"),
            ("-600263", "-562192", "-1162455"),
            ("126738708871033765.356572", "-8.9484879221946617e-06", "126738708871033765.359375"),
            ("188631", "-797.071263954807022856", "187833.92873604519297714"),
            ("658995369e-27", "833607", "833607"),
            ("-702.8990293382171", "373006685e16", "3730066849999999999934464"),
            ("132993542589159083.890174", "553857844664538583.507337", "686851387253697667.375"),
            ("92217960e-12", "572180", "572180.00009221796000247"),
        ] {
            check(a, b, expected);
        }
    }

    #[test]
    fn texts_that_are_no_number() {
        for text in
            ["", " 1", "1 ", "abc", "1e", "1e+", ".", "-", "1.2.3", "nan", "0x", "1e99999", "1f", "--1"]
        {
            assert_eq!(Extended::parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
