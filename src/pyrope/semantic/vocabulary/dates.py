"""Months, days of the week and days told from today."""

from __future__ import annotations

from typing import Final

_TABLE: Final = """
january janvier enero janeiro gennaio januar
february feb février febrero fevereiro febbraio februar
march mars marzo março märz
april avril abril aprile
may mai mayo maio maggio
june juin junio junho giugno juni
july juillet julio julho luglio juli
august août agosto
september sept septembre septiembre setembro settembre
october oct octobre octubre outubro ottobre oktober
november nov novembre noviembre novembro
december dec décembre diciembre dezembro dicembre dezember
monday lundi lunes montag lunedì
tuesday mardi martes dienstag martedì
wednesday mercredi miércoles mittwoch mercoledì
thursday jeudi jueves donnerstag giovedì
friday vendredi viernes freitag venerdì
saturday samedi sábado samstag sabato
sunday dimanche domingo sonntag domenica
today heute aujourd'hui hoy hoje oggi
tomorrow morgen demain amanhã domani
yesterday gestern ayer ontem ieri
christmas
easter
thanksgiving
halloween
diwali
ramadan
spring frühling printemps primavera
summer sommer été verano verão estate
autumn herbst automne otoño outono autunno
winter hiver invierno inverno
"""
DATES: Final = {
    name: line.split()[0] for line in _TABLE.strip().splitlines() for name in line.split()
}
"""A name, case-folded, to its English one."""

CAPITALISED: Final = frozenset(("may", "march", "mars", "mai"))
"""What is a date only where it has a capital and does not begin a sentence."""
