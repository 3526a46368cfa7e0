//! Deserializers that take what they can use. Monitoring JSON changes between versions of nats-server: a field of another
//! type is a missing field, never a failed read and never a panic.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value of the type that is wanted, or nothing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lax<T>(pub(super) Option<T>);

impl<T> Default for Lax<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Default> Lax<T> {
    pub(super) fn or_default(self) -> T {
        self.0.unwrap_or_default()
    }
}

/// What a type accepts of the kinds of JSON values; the rest is nothing.
pub(super) trait Accept<'de>: Sized {
    fn int(_: i128) -> Option<Self> {
        None
    }
    fn flag(_: bool) -> Option<Self> {
        None
    }
    fn text(_: &str) -> Option<Self> {
        None
    }
    fn list<A: SeqAccess<'de>>(mut seq: A) -> Result<Option<Self>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl Accept<'_> for u64 {
    /// Counters are signed in nats-server; a negative one means nothing.
    fn int(n: i128) -> Option<Self> {
        u64::try_from(n).ok()
    }
}

impl Accept<'_> for u16 {
    fn int(n: i128) -> Option<Self> {
        u16::try_from(n).ok()
    }
}

impl Accept<'_> for i64 {
    fn int(n: i128) -> Option<Self> {
        i64::try_from(n).ok()
    }
}

impl Accept<'_> for bool {
    fn flag(b: bool) -> Option<Self> {
        Some(b)
    }
}

impl Accept<'_> for String {
    fn text(s: &str) -> Option<Self> {
        Some(s.to_owned())
    }
}

impl<'de, T: Accept<'de>> Accept<'de> for Vec<T> {
    fn list<A: SeqAccess<'de>>(mut seq: A) -> Result<Option<Self>, A::Error> {
        let mut all = Vec::new();
        while let Some(Lax(one)) = seq.next_element::<Lax<T>>()? {
            all.extend(one);
        }
        Ok(Some(all))
    }
}

impl<'de, T: Accept<'de>> Accept<'de> for BTreeMap<String, T> {
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((key, Lax(one))) = map.next_entry::<String, Lax<T>>()? {
            if let Some(one) = one {
                all.insert(key, one);
            }
        }
        Ok(Some(all))
    }
}

/// A struct with derived `Deserialize` whose fields are all [`Lax`].
pub(super) trait Fields<'de>: Deserialize<'de> {}

/// Lets a [`Fields`] struct stand where any value may come.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Obj<T>(pub(super) T);

impl<'de, T: Fields<'de>> Accept<'de> for Obj<T> {
    fn object<A: MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|fields| Some(Self(fields)))
    }
}

impl<'de, T: Accept<'de>> Deserialize<'de> for Lax<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LaxVisitor(PhantomData)).map(Self)
    }
}

struct LaxVisitor<T>(PhantomData<T>);

impl<'de, T: Accept<'de>> Visitor<'de> for LaxVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_bool<E: Error>(self, b: bool) -> Result<Self::Value, E> {
        Ok(T::flag(b))
    }
    fn visit_i64<E: Error>(self, n: i64) -> Result<Self::Value, E> {
        Ok(T::int(n.into()))
    }
    fn visit_u64<E: Error>(self, n: u64) -> Result<Self::Value, E> {
        Ok(T::int(n.into()))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_str<E: Error>(self, s: &str) -> Result<Self::Value, E> {
        Ok(T::text(s))
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        T::list(seq)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::object(map)
    }
}
