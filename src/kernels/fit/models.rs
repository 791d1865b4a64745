//! One page per model: equation, parameters and units, source, where it holds, what can't be identified, and a figure.
//!
//! In every figure the thin line is the plasma's concentration, a tenth as high, and the strong lines are the tissue's for
//! three values of one parameter.

macro_rules! pages {
    ($($name:ident = $text:literal, $figure:literal;)*) => {
        $(#[doc = include_str!(concat!("../../../docs/models/", $text))]
        #[doc = ""]
        #[doc = include_str!(concat!("../../../docs/models/", $figure))]
        pub mod $name {})*
    };
}

pages! {
    tofts = "tofts.md", "tofts.svg";
    extended_tofts = "extended_tofts.md", "extended_tofts.svg";
    patlak = "patlak.md", "patlak.svg";
    one_compartment = "one_compartment.md", "one_compartment.svg";
    two_compartment_uptake = "two_compartment_uptake.md", "two_compartment_uptake.svg";
    two_compartment_exchange = "two_compartment_exchange.md", "two_compartment_exchange.svg";
    brix = "brix.md", "brix.svg";
}
