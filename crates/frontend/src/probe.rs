//! Asks a type for the names of its members, all the way down, and compares them with the model.
//!
//! Serde hands the names of a struct's fields to whoever deserialises it; this deserialiser makes up a value for every
//! member that the model has and notes each name that it has not.

use std::cell::RefCell;

use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};

use crate::model::{Kind, LAMBDA, Operation, Shape};

/// Paths in `T` that the input or output of `operation` does not have.
pub(crate) fn unknown<T>(operation: &str, of: impl Fn(&Operation) -> &Option<String>) -> Vec<String>
where
    T: for<'de> Deserialize<'de>,
{
    let found = RefCell::default();
    let shape = LAMBDA.operations.get(operation).and_then(|known| of(known).as_deref());
    if let Some(shape) = shape.and_then(|name| LAMBDA.shape(name)) {
        let probe = Probe { shape, path: String::new(), found: &found };
        assert!(T::deserialize(probe.clone()).is_ok(), "{operation}: {:?}", T::deserialize(probe).err());
    }
    let mut found = found.into_inner();
    found.dedup();
    found
}

#[derive(Clone)]
struct Probe<'a> {
    shape: &'a Shape,
    path: String,
    found: &'a RefCell<Vec<String>>,
}

impl<'a> Probe<'a> {
    fn inner(&self, name: &Option<String>, step: &str) -> Option<Self> {
        let shape = LAMBDA.shape(name.as_deref()?)?;
        Some(Self { shape, path: format!("{}{step}", self.path), found: self.found })
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.shape.kind {
            Kind::Structure => visitor.visit_map(Fields { probe: self, names: [].iter(), value: None }),
            Kind::Map => self.deserialize_map(visitor),
            Kind::List => self.deserialize_seq(visitor),
            Kind::Integer | Kind::Long => visitor.visit_u64(1),
            Kind::Double | Kind::Float | Kind::Timestamp => visitor.visit_f64(0.5),
            Kind::Boolean => visitor.visit_bool(true),
            Kind::String | Kind::Blob => visitor.visit_string(self.shape.words.first().cloned().unwrap_or_default()),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(0.5)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        for name in fields.iter().filter(|name| !self.shape.has(name)) {
            self.found.borrow_mut().push(format!("{}{name}", self.path));
        }
        visitor.visit_map(Fields { probe: self, names: fields.iter(), value: None })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        for word in variants.iter().filter(|word| !self.shape.words.iter().any(|known| known == *word)) {
            self.found.borrow_mut().push(format!("{}={word}", self.path));
        }
        let first: StrDeserializer<'_, Error> = variants.first().copied().unwrap_or_default().into_deserializer();
        visitor.visit_enum(first)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(One(self.inner(&self.shape.member, "[].")))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(One(self.inner(&self.shape.value, "{}.")))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 char str string bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

/// A struct's fields, those that the model has.
struct Fields<'a> {
    probe: Probe<'a>,
    names: std::slice::Iter<'static, &'static str>,
    value: Option<Probe<'a>>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        for name in self.names.by_ref() {
            let Some(member) = self.probe.shape.get(name) else { continue };
            self.value = self.probe.inner(&Some(member.shape.clone()), &format!("{name}."));
            return seed.deserialize((*name).into_deserializer()).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.value.take() {
            Some(probe) => seed.deserialize(probe),
            None => seed.deserialize(().into_deserializer()),
        }
    }
}

/// One entry of a list or of a map.
struct One<'a>(Option<Probe<'a>>);

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|probe| seed.deserialize(probe)).transpose()
    }
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let key: StringDeserializer<Error> = "1".to_owned().into_deserializer();
        self.0.is_some().then(|| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.0.take() {
            Some(probe) => seed.deserialize(probe),
            None => seed.deserialize(().into_deserializer()),
        }
    }
}
