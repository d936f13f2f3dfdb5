//! How keys become bytes.

use crate::error::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;

/// A type that can be a map's key. Different keys must have different bytes.
///
/// Texts and bytes are themselves, integers are their decimal digits, so that Redis clients see the
/// same keys. Anything else goes through [`Coded`].
pub trait Key {
    /// What a scan gives back.
    type Owned;

    /// The key as bytes.
    ///
    /// # Errors
    /// [`Error::Encode`].
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>, Error>;

    /// The key of these bytes.
    ///
    /// # Errors
    /// [`Error::Decode`] if they are no key of this type.
    fn from_bytes(bytes: Vec<u8>) -> Result<Self::Owned, Error>;
}

/// A key of any type that serde knows, as postcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Coded<T>(pub T);

impl Key for str {
    type Owned = String;

    fn to_bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(self.as_bytes()))
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<String, Error> {
        String::from_utf8(bytes).map_err(|error| Error::Decode(error.to_string()))
    }
}

impl Key for String {
    type Owned = String;

    fn to_bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        self.as_str().to_bytes()
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<String, Error> {
        str::from_bytes(bytes)
    }
}

impl Key for [u8] {
    type Owned = Vec<u8>;

    fn to_bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(self))
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        Ok(bytes)
    }
}

impl Key for Vec<u8> {
    type Owned = Vec<u8>;

    fn to_bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(self))
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        Ok(bytes)
    }
}

macro_rules! integer_keys {
    ($($integer:ty),*) => {$(
        impl Key for $integer {
            type Owned = $integer;

            fn to_bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
                Ok(Cow::Owned(itoa::Buffer::new().format(*self).as_bytes().to_vec()))
            }

            fn from_bytes(bytes: Vec<u8>) -> Result<$integer, Error> {
                let text = str::from_bytes(bytes)?;
                text.parse().map_err(|_| Error::Decode(format!("{text:?} is no {}", stringify!($integer))))
            }
        }
    )*};
}

integer_keys!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

impl<T: Serialize + DeserializeOwned> Key for Coded<T> {
    type Owned = Coded<T>;

    fn to_bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        let bytes = postcard::to_stdvec(&self.0).map_err(|error| Error::Encode(error.to_string()))?;
        Ok(Cow::Owned(bytes))
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Coded<T>, Error> {
        let decoded = postcard::from_bytes(&bytes).map_err(|error| Error::Decode(error.to_string()))?;
        Ok(Coded(decoded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_back<K: Key<Owned = K> + PartialEq + std::fmt::Debug>(key: K, bytes: &[u8]) {
        assert_eq!(&*key.to_bytes().unwrap(), bytes);
        assert_eq!(K::from_bytes(bytes.to_vec()), Ok(key));
    }

    #[test]
    fn keys_are_what_redis_clients_see() {
        comes_back("user:1".to_owned(), b"user:1");
        comes_back(vec![0, 255], &[0, 255]);
        comes_back(-42i64, b"-42");
        comes_back(7u128, b"7");
        comes_back(Coded((1u8, true)), &[1, 1]);
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(matches!(u8::from_bytes(b"256".to_vec()), Err(Error::Decode(_))));
        assert!(matches!(str::from_bytes(vec![0xff]), Err(Error::Decode(_))));
        assert!(matches!(Coded::<bool>::from_bytes(vec![9]), Err(Error::Decode(_))));
    }
}
