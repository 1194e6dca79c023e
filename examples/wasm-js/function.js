// A WebAssembly component in JavaScript: lambent:function/handler, event in, answer out (componentize-js).

export const handler = {
  handle(event, context) {
    const { name = "you" } = JSON.parse(new TextDecoder().decode(event));
    console.log("called by", name);
    return new TextEncoder().encode(JSON.stringify({ hello: name, request: context.requestId }));
  },
};
