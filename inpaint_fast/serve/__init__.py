"""A web page with a brush: `inpaint-fast serve`. Open a picture, paint the hole, complete it, compare, save.

A page of our own over the standard library's server, and not gradio's ImageEditor: it starts within milliseconds of
the package's import, needs nothing that this does not have (gradio brings dozens of packages, a web framework among
them), loads nothing from elsewhere, shows the very pixels that are completed, and who gets what answer is one file.

`server`: who may ask for what, and the answers; `line`: one at a time, and a bound on those who wait; `uploads`: bytes
to pictures and masks. In the browser: `page.html`, `page.css`; `page.js`, what buttons, keys and pointers do;
`painting.js`, strokes and the mask that is made of them; `view.js`, where the picture lies on the screen; `server.js`,
what is asked here.
"""

from __future__ import annotations

from inpaint_fast.serve.server import Limits, Server

__all__ = ["Limits", "Server"]
