// A greeting, and what the function knows about itself.

export const handler = async (event, context) => {
    const name = event?.name ?? 'world';
    console.info('greeting %s, with %d ms left', name, context.getRemainingTimeInMillis());
    return {
        message: `Hello, ${name}!`,
        from: `Node.js ${process.versions.node}`,
        function: context.functionName,
        request: context.awsRequestId,
    };
};
