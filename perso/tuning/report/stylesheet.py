"""What a search's page adds to the style of all pages."""

from typing import Final

STYLE: Final = """
.banner { display: flex; gap: 14px; align-items: baseline; padding: 14px 18px; margin: 18px 0 4px;
  border-radius: 8px; font-size: 17px; }
.banner b { font-size: 22px; white-space: nowrap; }
.live { background: #e8f5ea; border-left: 6px solid #1b7837; } .live b { color: #14602b; }
.held { background: #fff4e0; border-left: 6px solid #b45309; } .held b { color: #8a3f06; }
.strong { font-weight: 600; }
.better, .good { color: #14602b; } .worse, .bad { color: var(--warn); }
.good, .bad { white-space: nowrap; font-weight: 600; }
.pale { color: var(--muted); font-style: italic; }
.ranked tbody th, .facts tbody th, .tight tbody th { min-width: 0; }
.ranked td small, .told th small { max-width: 46em; }
.told td { max-width: 32em; } .told tbody th { min-width: 150px; }
.code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.code { overflow-wrap: anywhere; font-size: 13px; }
pre { background: var(--wash); border-radius: 8px; padding: 14px 16px; font-size: 13px;
  line-height: 1.45; overflow-x: auto; }
h1, h2, h3, p, li, .banner span, td, th { overflow-wrap: break-word; }
@media screen { nav { display: flex; flex-wrap: wrap; } }
@media (max-width: 720px) { main, header, footer { padding: 0 14px; }
  .banner { flex-direction: column; gap: 2px; } .tile { flex-basis: 140px; }
  figure { overflow-x: auto; } figure img { min-width: 660px; }
  figcaption, caption { position: sticky; left: 0; max-width: calc(100vw - 28px); }
  td small { min-width: 170px; }
  .told thead { display: none; } .told tr { display: block; padding: 8px 0;
    border-bottom: 1px solid var(--line); }
  .told tbody th, .told tbody td { display: block; border: 0; padding: 2px 0; text-align: left; } }
@media print { pre { white-space: pre-wrap; font-size: 9.5px; } .banner { font-size: 13px; }
  .banner b { font-size: 16px; } .code { font-size: 10px; }
  .ranked { break-inside: auto; } tr, caption, .banner { break-inside: avoid; }
  caption, h2 + p, h3 + p { break-after: avoid; } }
"""
