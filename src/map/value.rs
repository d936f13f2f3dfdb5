//! How values become bytes.

use crate::error::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;

/// A type that can be a map's value: any that serde knows, kept as postcard, or [`Raw`] or
/// [`Text`], kept as they are.
pub trait Value: Sized {
    /// The value as bytes.
    ///
    /// # Errors
    /// [`Error::Encode`].
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>, Error>;

    /// The value of these bytes.
    ///
    /// # Errors
    /// [`Error::Decode`] if they are no value of this type.
    fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error>;
}

/// Bytes as they are, to share values with Redis clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Raw(pub Vec<u8>);

/// UTF-8 as it is, to share values with Redis clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(pub String);

impl<T: Serialize + DeserializeOwned> Value for T {
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        let bytes = postcard::to_stdvec(self).map_err(|error| Error::Encode(error.to_string()))?;
        Ok(Cow::Owned(bytes))
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<T, Error> {
        postcard::from_bytes(&bytes).map_err(|error| Error::Decode(error.to_string()))
    }
}

impl Value for Raw {
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(&self.0))
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Raw, Error> {
        Ok(Raw(bytes))
    }
}

impl Value for Text {
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(self.0.as_bytes()))
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Text, Error> {
        String::from_utf8(bytes).map(Text).map_err(|error| Error::Decode(error.to_string()))
    }
}

impl<T: Into<Vec<u8>>> From<T> for Raw {
    fn from(bytes: T) -> Raw {
        Raw(bytes.into())
    }
}

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Text {
        Text(text.into())
    }
}
