// Keeps the page up to date: asks for it again every two seconds and takes over what differs. Text stays text on the way:
// the browser reads the answer as a document, and nothing of it is run.
"use strict";
{
  const pause = 2000;

  // Makes the node `old` like `now`, and leaves alone what is alike: selections and opened details stay.
  const settle = (old, now) => {
    if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName) {
      old.replaceWith(document.importNode(now, true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== now.data) old.data = now.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!now.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of now.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const before = [...old.childNodes];
    const after = [...now.childNodes];
    before.slice(after.length).forEach((node) => node.remove());
    after.forEach((node, at) => {
      if (at < before.length) settle(before[at], node);
      else old.append(document.importNode(node, true));
    });
  };

  const say = (text) => {
    const live = document.getElementById("live");
    if (live) live.textContent = text;
  };

  const next = () => setTimeout(() => (document.hidden ? next() : ask()), pause);

  const ask = () => {
    const request = new XMLHttpRequest();
    request.open("GET", "./");
    request.responseType = "document";
    request.timeout = 3 * pause;
    request.onload = () => {
      const main = request.status === 200 && request.response && request.response.querySelector("main");
      document.documentElement.classList.toggle("lost", !main);
      if (main) settle(document.querySelector("main"), main);
      say(main ? " · live" : " · the agent does not answer");
    };
    request.onerror = request.ontimeout = () => {
      document.documentElement.classList.add("lost");
      say(" · the agent does not answer");
    };
    request.onloadend = next;
    request.send();
  };

  say(" · live");
  next();
}
