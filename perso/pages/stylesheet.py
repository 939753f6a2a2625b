"""How every page looks, on a screen and on paper."""

from typing import Final

STYLE: Final = """
:root { color-scheme: light; --ink: #1f2933; --muted: #5b6774; --line: #e1e6ea; --wash: #f6f8fa;
  --accent: #08519c; --warn: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main, header, footer { max-width: 1000px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 36px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 22px; line-height: 1.3; margin: 52px 0 6px; padding-top: 18px;
  border-top: 1px solid var(--line); }
h3 { font-size: 16.5px; margin: 28px 0 6px; }
p { margin: 8px 0; max-width: 46em; }
.when, figcaption, .note, footer { color: var(--muted); font-size: 14px; }
.lead { font-size: 19px; line-height: 1.5; margin: 16px 0; }
nav { margin: 16px 0 0; font-size: 14px; }
nav a { color: var(--accent); margin-right: 14px; white-space: nowrap; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 22px 0 8px; }
.tile { flex: 1 1 200px; background: var(--wash); border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; white-space: nowrap; font-size: 23px; line-height: 1.25; }
.tile span { color: var(--muted); font-size: 13.5px; }
.alerts { list-style: none; padding: 0; margin: 12px 0; }
.alerts li { border-left: 4px solid var(--warn); background: #fdf3f2; padding: 8px 14px;
  margin: 8px 0; border-radius: 0 6px 6px 0; }
.calm { border-left: 4px solid #1b7837; background: #f1f8f2; padding: 8px 14px;
  border-radius: 0 6px 6px 0; max-width: none; }
figure { margin: 16px 0 8px; }
figure img { width: 100%; height: auto; display: block; }
figcaption, caption { max-width: 52em; }
.wide { overflow-x: auto; margin: 14px 0 4px; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); font-size: 14px; padding: 0 0 8px; }
th, td { padding: 6px 9px; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--muted); font-weight: 600; font-size: 13px; vertical-align: bottom;
  border-bottom: 2px solid var(--line); }
tbody th { font-weight: 600; }
.n { text-align: right; }
td.n { white-space: nowrap; }
tbody th { min-width: 190px; }
.turned tbody th { min-width: 0; white-space: nowrap; }
.hid { color: var(--muted); }
small { display: block; color: var(--muted); font-weight: 400; font-size: 12.5px;
  line-height: 1.35; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  margin-right: 7px;
  border: 1px solid rgba(0,0,0,.18); }
.number { display: inline-block; min-width: 22px; height: 22px; line-height: 18px;
  margin-right: 7px;
  border: 2px solid; border-radius: 11px; text-align: center; font-size: 12.5px; }
.heat { font-size: 13px; }
.heat td, .heat th { border: 2px solid #fff; padding: 5px 6px; vertical-align: middle; }
.heat td { text-align: center; min-width: 44px; }
.heat thead th { text-align: center; vertical-align: bottom; }
.turned thead th { vertical-align: bottom; }
.turned thead th:not(:first-child) span { writing-mode: vertical-rl; transform: rotate(180deg);
  white-space: nowrap; line-height: 1.1; text-align: left; }
.turned th, .turned td { padding-left: 6px; padding-right: 6px; }
.heat.turned thead th { text-align: center; }
.heat:not(.turned) thead th:not(:first-child) { width: 88px; }
.heat thead th:first-child { text-align: left; }
.heat tbody th { min-width: 0; width: 1%; white-space: nowrap; }
.pair { display: flex; gap: 28px; flex-wrap: wrap; }
.pair > div { flex: 1 1 400px; }
.stay { box-shadow: inset 0 0 0 2px #6c737a; }
.key { columns: 2; padding-left: 0; list-style: none; font-size: 14.5px; }
.key li { margin: 4px 0; break-inside: avoid; }
.moves { padding-left: 20px; }
.moves li { margin: 3px 0; }
.best { background: #eaf2fa; }
footer { margin: 56px auto 48px; padding-top: 16px; border-top: 1px solid var(--line); }
@page { margin: 14mm; }
@media print { nav { display: none; } main, header, footer { max-width: none; padding: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 12px; } h2 { margin-top: 24px; } h2, h3 { break-after: avoid; }
  .lead { font-size: 15px; } .when, figcaption, caption, .note, footer { font-size: 11px; }
  figure, .tile, table { break-inside: avoid; } .tile { flex-basis: 120px; }
  .tile b { font-size: 17px; } .tile span { font-size: 11px; } .wide { overflow: visible; }
  table, .heat { font-size: 10.5px; } thead th { font-size: 10px; } small { font-size: 9.5px; }
  th, td { padding: 3px 5px; } tbody th { min-width: 130px; } .pair > div { flex-basis: 260px; }
  .heat td { min-width: 30px; padding: 4px 2px; } }
"""
