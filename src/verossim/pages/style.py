"""The look of a page: one style for phones and desks, for light, dark and paper."""

from .plots import COLOURS

__all__ = ["STYLE"]

#: The colours of `plots.COLOURS` on dark paper, in their order.
DARK = ("#6cb6ff", "#ffa061", "#4cc9a3", "#d49bff", "#ff8fab", "#c8d45a", "#5fd3e8", "#d6b48a")


def _variables(colours: tuple[str, ...]) -> str:
    return " ".join(f"--c{i}: {colour};" for i, colour in enumerate(colours))


LIGHT_PALETTE = ("color-scheme: light dark; --paper: #ffffff; --ink: #1b1e23; --quiet: #565d68; --line: #d5d9df; "
                 "--soft: #f3f5f7; --link: #0b57a4; --alarm: #8a3b00; --alarmed: #fff4e6; " + _variables(COLOURS))
DARK_PALETTE = ("--paper: #14171b; --ink: #e8eaed; --quiet: #a7afba; --line: #3a4048; --soft: #1e2228; "
                "--link: #8cc2ff; --alarm: #ffc078; --alarmed: #2c2216; " + _variables(DARK))
STYLE = f"""
:root {{ {LIGHT_PALETTE} }}
@media (prefers-color-scheme: dark) {{ :root {{ {DARK_PALETTE} }} }}
""" + """
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Noto Sans", sans-serif; overflow-wrap: break-word }
main, footer { max-width: 72rem; margin: 0 auto; padding: 0 clamp(.9rem, 3vw, 2rem) }
h1 { font-size: clamp(1.5rem, 1.2rem + 2vw, 2.2rem); line-height: 1.2; margin: 1.5rem 0 .5rem; text-wrap: balance }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 .5rem; padding-top: .9rem; border-top: 1px solid var(--line) }
p, ul { max-width: 44rem; margin: .5rem 0 }
li { margin: .25rem 0 }
a { color: var(--link) }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
.lead { font-size: 1.1rem; color: var(--quiet) }
.quiet, figcaption, footer { color: var(--quiet); font-size: .875rem }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; list-style: none; padding: 0; max-width: none; font-size: .9rem }
nav li { margin: 0 }
nav a { display: inline-block; padding: .3rem 0 }
.warning { background: var(--alarmed); border-left: 4px solid var(--alarm); padding: .6rem .9rem; border-radius: 3px }
.warning strong { color: var(--alarm) }
.scroll { position: relative; overflow-x: auto; margin: 1rem 0; max-width: 100% }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
caption { text-align: left; color: var(--quiet); font-size: .875rem; padding-bottom: .4rem }
caption span { position: sticky; left: 0; display: inline-block; max-width: min(44rem, 90vw) }
th, td { padding: .45rem .55rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line) }
td { white-space: nowrap }
td.words { white-space: normal; text-align: left; min-width: 11rem }
thead th { vertical-align: bottom; line-height: 1.25; border-bottom: 2px solid var(--line); background: var(--soft);
  min-width: 4.5rem }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); min-width: 7rem; max-width: 11rem }
thead th:first-child { background: var(--soft) }
tr.aside th, tr.aside td { color: var(--quiet); font-weight: normal }
small { display: block; font-size: .78rem; font-weight: normal; color: var(--quiet); line-height: 1.35 }
.best { background: var(--soft) }
.aloud { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }
dl { margin: .8rem 0; max-width: 60rem }
dl div { display: grid; grid-template-columns: minmax(7rem, 13rem) 1fr; gap: 0 1rem; padding: .25rem 0;
  border-bottom: 1px solid var(--line) }
dt { color: var(--quiet); overflow-wrap: anywhere }
dd { margin: 0; overflow-wrap: anywhere }
figure { margin: 1rem 0 }
figcaption { margin-top: .4rem; max-width: 44rem }
.chart { display: inline-block; width: 27rem; max-width: 100%; margin: 1rem 1.5rem .5rem 0; vertical-align: top }
.chart svg { width: 100%; height: auto; display: block }
.grid { --gap: 6px; display: grid; gap: var(--gap); max-width: calc(var(--n) * (var(--tile) + var(--gap)));
  grid-template-columns: repeat(auto-fill, minmax(max(38px, calc(100% / var(--n) - var(--gap))), 1fr)) }
img { width: 100%; height: auto; display: block; background: var(--soft) }
.sharp { image-rendering: pixelated }
.pairs { display: flex; flex-wrap: wrap; gap: 1rem }
.pair { max-width: 100% }
.pair div { display: flex; flex-wrap: wrap; gap: 4px }
.pair img { width: 80px }
.pair pre { flex: 1 1 16rem; min-width: 0 }
.pair p { font-size: .82rem; color: var(--quiet); margin: .25rem 0; max-width: 34rem; min-width: 0 }
pre { margin: 0 0 .6rem; padding: .6rem .8rem; background: var(--soft); border-radius: 3px; white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: 22rem; overflow-y: auto; max-width: 60rem;
  font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace }
footer { margin-top: 2.5rem; padding-bottom: 2rem }
@media (max-width: 34rem) { .chart { margin-right: 0 } dl div { grid-template-columns: 1fr } th, td { padding: .4rem .5rem } }
@media print {
  :root { """ + LIGHT_PALETTE.replace("color-scheme: light dark", "color-scheme: light") + """ }
  body { font-size: 10pt } nav { display: none } .scroll { overflow: visible } pre { max-height: none }
  table { font-size: 7.5pt } th, td { padding: 2pt 3pt } thead th { min-width: 0 } th:first-child { position: static }
  figure, tr, .pair, .warning, dl div { break-inside: avoid } h2 { break-after: avoid } img, svg, .best, .warning {
  print-color-adjust: exact; -webkit-print-color-adjust: exact }
}
"""
