// What the page's own parts do in the browser. Gradio renders their HTML anew; these listeners stay on what holds it.
window.hybridiqa = (() => {
  // After new HTML, give the focus back to the button that had it: whoever uses the keys stays where they were.
  function keepFocus(element, watch, attribute) {
    let focused = null;
    element.addEventListener("focusin", (event) => {
      focused = event.target.getAttribute(attribute);
    });
    element.addEventListener("focusout", (event) => {
      if (event.relatedTarget) focused = null;
    });
    watch("value", () => {
      if (focused === null || (document.activeElement && document.activeElement !== document.body)) return;
      for (const button of element.querySelectorAll(`[${attribute}]`)) {
        if (button.getAttribute(attribute) === focused) button.focus({ preventScroll: true });
      }
    });
  }

  function gallery(element, trigger, watch) {
    element.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      trigger("click", "more" in button.dataset ? { more: true } : { name: button.dataset.name });
    });
    keepFocus(element, watch, "data-name");
  }

  function detail(element, trigger, watch) {
    const dialog = () => element.querySelector("dialog");
    element.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (event.target === dialog() || (button && "close" in button.dataset)) dialog().close();
      else if (button && button.dataset.name !== undefined) trigger("click", { name: button.dataset.name });
    });
    element.addEventListener("keydown", (event) => {
      const steps = dialog() ? [...dialog().querySelectorAll("nav button")] : [];
      const index = { ArrowLeft: 0, ArrowRight: 1 }[event.key];
      if (index !== undefined && steps[index]) steps[index].click();
    });
    watch("value", () => {
      if (dialog() && !dialog().open) dialog().showModal();
    });
  }

  function isTyping(target) {
    return target.closest && target.closest("input, textarea, select, [contenteditable], dialog") !== null;
  }

  function label(element, trigger, watch) {
    let isBusy = false; // until the next image is there, so that no key can hit an image unseen
    const choose = (button) => {
      const picture = element.querySelector(".label").dataset.picture;
      const choice = button.dataset.choice;
      if (isBusy || (!picture && choice !== "undo")) return;
      isBusy = true;
      trigger("click", { picture, choice });
    };
    element.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) choose(button);
    });
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || isTyping(event.target)) return;
      if (!element.isConnected || element.offsetParent === null || document.querySelector("dialog[open]")) return;
      // By its place on the keyboard, so that 1-5 and the row below are the ladders on every layout.
      const key = event.code.replace(/^(Digit|Numpad|Key)/, "");
      for (const button of element.querySelectorAll("button")) {
        if (button.getAttribute("aria-keyshortcuts") === key) {
          event.preventDefault();
          choose(button);
        }
      }
    });
    watch("value", () => {
      isBusy = false;
    });
    keepFocus(element, watch, "data-choice");
  }

  function download(address) {
    if (!address) return;
    const link = document.createElement("a");
    link.href = address.split("#")[0]; // what stands behind the # makes each answer another one
    link.download = "";
    document.body.append(link);
    link.click();
    link.remove();
  }

  // An emptied number keeps all, as the left end of its slider does; Gradio takes no empty ones.
  function filter(score, percentile) {
    const lowest = document.querySelector("#lowest input[type=range]").min;
    return [score ?? Number(lowest), percentile ?? 0];
  }

  return { gallery, detail, label, download, filter };
})();
