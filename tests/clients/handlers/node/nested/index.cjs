exports.handler = async () => 'cjs'; exports.deep = { er: { handler: async () => 'deep' } };
