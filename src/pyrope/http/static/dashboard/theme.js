// Light, dark, or as the system has it.

import { byId, setText } from "./dom.js";

const PLACE = "pyrope.theme";
const THEMES = ["auto", "light", "dark"];

export function startTheme(onChange) {
  const button = byId("theme");
  let theme = localStorage.getItem(PLACE);
  if (!THEMES.includes(theme)) theme = "auto";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    setText(button, `Theme: ${theme}`);
    onChange();
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem(PLACE, theme);
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
  show();
}
