module.exports = { handler: async () => 'made at run time' };
