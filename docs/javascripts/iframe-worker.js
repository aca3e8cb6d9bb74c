// Search needs a worker, and a page that was opened from a disk may have none: there an empty frame does its work.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.body.appendChild(document.createElement("iframe"));
      frame.hidden = true;
      this.inside = frame.contentWindow;
      window.addEventListener("message", (event) => {
        if (event.source === this.inside) {
          const told = new MessageEvent("message", { data: event.data });
          this.dispatchEvent(told);
          this.onmessage?.(told);
        }
      });
      this.inside.postMessageOut = (data) => window.dispatchEvent(new MessageEvent("message", { data, source: this.inside }));
      this.inside.document.open();
      this.inside.document.write(`<body><script>
        postMessage = postMessageOut;
        importScripts = (...urls) => urls.reduce((before, src) => before.then(() => new Promise((done, failed) => {
          const script = document.body.appendChild(document.createElement("script"));
          Object.assign(script, { src, onload: done, onerror: failed });
        })), Promise.resolve());
      <\/script><script src="${new URL(url, document.baseURI)}"><\/script></body>`);
      this.inside.document.close();
      this.ready = new Promise((done) => { this.inside.onload = done; });
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.inside.frameElement.remove();
    }
  };
}
