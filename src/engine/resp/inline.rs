//! Splitting an inline command: the line a human types, with quotes.

/// Splits `line` at blanks, honouring `"…"` with escapes (`\n \r \t \b \a \xHH`) and `'…'` with
/// `\'`. Arguments are appended to `unquoted`; `visit` gets the range of each there.
///
/// `None` when quotes do not match, or a closing quote is not followed by a blank.
pub(super) fn split(line: &[u8], unquoted: &mut Vec<u8>, mut visit: impl FnMut(usize, usize)) -> Option<()> {
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
        rest = &rest[blanks..];
        if rest.is_empty() {
            return Some(());
        }
        let start = unquoted.len();
        while let Some((&byte, after)) = rest.split_first() {
            if is_blank(byte) {
                break;
            }
            rest = match byte {
                b'"' => double_quoted(after, unquoted)?,
                b'\'' => single_quoted(after, unquoted)?,
                other => {
                    unquoted.push(other);
                    after
                }
            };
            let quoted = byte == b'"' || byte == b'\'';
            if quoted && rest.first().is_some_and(|&next| !is_blank(next)) {
                return None;
            }
        }
        visit(start, unquoted.len());
    }
}

fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b || byte == 0
}

/// Takes up to the closing `"`; what follows it.
fn double_quoted<'a>(mut rest: &'a [u8], unquoted: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                unquoted.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                unquoted.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                unquoted.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

/// Takes up to the closing `'`; what follows it.
fn single_quoted<'a>(mut rest: &'a [u8], unquoted: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => {
                unquoted.push(b'\'');
                rest = after;
            }
            [byte, after @ ..] => {
                unquoted.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}
