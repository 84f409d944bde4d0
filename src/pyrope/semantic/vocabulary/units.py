"""Units of measure and money by their names."""

from __future__ import annotations

from typing import Final

_TABLE: Final = """
length nm nanometre nanometres nanometer nanometers
length μm micrometre micrometres micrometer micrometers
length mm millimetre millimetres millimeter millimeters
length cm centimetre centimetres centimeter centimeters
length metre metres meter meters
length km kilometre kilometres kilometer kilometers kms
length mile miles
length inch inches
length foot feet
length yard yards
length lightyear lightyears
mass mcg μg microgram micrograms
mass mg milligram milligrams
mass gram grams
mass kg kilogram kilograms kilo kilos kgs
mass lb lbs pound pounds
mass oz ounce ounces
mass tonne tonnes ton tons
temperature celsius centigrade
temperature fahrenheit
temperature kelvin
time millisecond milliseconds ms
time seconds secs
time minute minutes mins
time hour hours hr hrs hourly
time day days daily
time week weeks weekly
time month months monthly
time year years yr yrs yearly annual annually
time fortnight fortnights fortnightly
time decade decades
time century centuries
volume ml millilitre millilitres milliliter milliliters
volume litre litres liter liters
volume gallon gallons
volume pint pints
volume cup cups
volume tablespoon tablespoons tbsp
volume teaspoon teaspoons tsp
data kb kilobyte kilobytes kib
data mb megabyte megabytes mib
data gb gigabyte gigabytes gib gigs
data tb terabyte terabytes tib
data byte bytes
data bit bits
data mbps mb/s
data kbps kb/s
data gbps gb/s
money $ usd dollar dollars
money € eur euro euros
money £ gbp
money ₹ inr rupee rupees
money ¥ jpy yen
money cny rmb yuan
money cent cents
money pence pennies
money peso pesos
money franc francs chf
money krw
money btc bitcoin bitcoins
money eth ethereum ether
speed mph
speed kph kmh kmph km/h
speed m/s
speed mi/h
speed knot knots
area acre acres
area hectare hectares
energy joule joules
energy calorie calories kcal
energy kwh
power watt watts
power kw kilowatt kilowatts
power mw megawatt megawatts
power hp horsepower
electric volt volts
electric amp amps ampere amperes
electric ohm ohms
angle degree degrees
angle radian radians
pressure psi
pressure pascal pascals kpa
pressure bar bars
frequency hz hertz
frequency khz
frequency mhz
frequency ghz
share % percent percentage percents
"""

UNITS: Final[dict[str, tuple[str, str]]] = {}
"""A word, case-folded, to its dimension and the unit's first name here."""

AFTER_A_NUMBER: Final[dict[str, tuple[str, str]]] = {
    "m": ("length", "metre"),
    "ft": ("length", "foot"),
    "in": ("length", "inch"),
    "yd": ("length", "yard"),
    "mi": ("length", "mile"),
    "g": ("mass", "gram"),
    "t": ("mass", "tonne"),
    "c": ("temperature", "celsius"),
    "f": ("temperature", "fahrenheit"),
    "°c": ("temperature", "celsius"),
    "°f": ("temperature", "fahrenheit"),
    "°": ("angle", "degree"),
    "k": ("temperature", "kelvin"),
    "s": ("time", "seconds"),
    "sec": ("time", "seconds"),
    "second": ("time", "seconds"),
    "min": ("time", "minute"),
    "h": ("time", "hour"),
    "d": ("time", "day"),
    "l": ("volume", "litre"),
    "gal": ("volume", "gallon"),
    "v": ("electric", "volt"),
    "a": ("electric", "amp"),
    "w": ("power", "watt"),
    "j": ("energy", "joule"),
    "cal": ("energy", "calorie"),
    "p": ("lines", "p"),
}
"""What is a unit only where a number comes before it; written together with it, unless longer."""


def _fill() -> None:
    for line in _TABLE.strip().splitlines():
        dimension, *names = line.split()
        for name in names:
            UNITS[name] = (dimension, names[0])


_fill()
